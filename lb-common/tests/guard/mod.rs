//! Bytes that end where readable memory ends: whoever reads one byte too many is killed.

use std::io;

/// Memory of several pages, the last of which may not be touched.
pub struct Guarded {
    start: *mut u8,
    /// How many bytes stand before the forbidden page.
    size: usize,
    page: usize,
}

impl Guarded {
    /// Room for `at_least` bytes.
    pub fn new(at_least: usize) -> Self {
        // SAFETY: no pointers are involved.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page's size");
        let size = at_least.next_multiple_of(page);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the kernel likes.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size + page, protection, flags, -1, 0) };
        assert!(start != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        let start = start.cast::<u8>();
        // SAFETY: the last page of the mapping just made, of which nobody has a reference.
        let failed = unsafe { libc::mprotect(start.wrapping_add(size).cast(), page, libc::PROT_NONE) };
        assert_eq!(failed, 0, "mprotect: {}", io::Error::last_os_error());
        Self { start, size, page }
    }

    /// The same bytes, at the very end.
    pub fn place(&mut self, bytes: &[u8]) -> &[u8] {
        assert!(bytes.len() <= self.size, "{} bytes", bytes.len());
        let at = self.start.wrapping_add(self.size - bytes.len());
        // SAFETY: `size` writable bytes begin at `start`, and `at` lies so far before their end; the borrow keeps others away.
        unsafe {
            at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            std::slice::from_raw_parts(at, bytes.len())
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no reference outlives `self`.
        unsafe { libc::munmap(self.start.cast(), self.size + self.page) };
    }
}

/// Whether reading the byte behind these kills the process, tried in a child.
pub fn kills_who_reads_behind(bytes: &[u8]) -> bool {
    // SAFETY: the child reads one byte and ends, and touches nothing that another thread of the parent may have held.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", io::Error::last_os_error());
    if child == 0 {
        // SAFETY: not safe, and that is what is tried.
        unsafe {
            std::ptr::read_volatile(bytes.as_ptr_range().end);
            libc::_exit(0);
        }
    }
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV
}
