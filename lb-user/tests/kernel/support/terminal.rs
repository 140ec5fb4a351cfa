//! A terminal that is none: a pseudo-terminal with a program on it, its screen read as a person would see it, its modes as the kernel
//! has them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{Termios, tcgetattr};
use rustix::termios::{Winsize, tcsetwinsize};

use super::wait::eventually;

/// How long a program may take to show what it is to show, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pseudo-terminal and the program on it.
pub struct Terminal {
    /// What a terminal's own end is: keys in, screen out.
    outer: File,
    /// What the program has: kept open, so that its modes can be looked at when the program has ended.
    inner: File,
    before: Termios,
    parser: vt100::Parser,
    child: Child,
}

impl Terminal {
    /// Starts the program on a terminal of so many rows and columns, which shows `$ ` as a shell would leave it.
    pub fn start(program: impl AsRef<OsStr>, arguments: &[&str], environment: &[(&str, &str)], (rows, columns): (u16, u16)) -> Self {
        let pair = openpty(None, None).expect("a pseudo-terminal");
        let (outer, inner) = (File::from(pair.master), File::from(pair.slave));
        tcsetwinsize(&outer, size(rows, columns)).expect("the terminal's size");
        let flags = OFlag::from_bits_retain(fcntl(&outer, FcntlArg::F_GETFL).expect("its flags"));
        fcntl(&outer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).expect("its flags");
        let before = tcgetattr(inner.as_fd()).expect("the terminal's modes");
        let end = || Stdio::from(inner.try_clone().expect("one more descriptor"));
        // Its controlling terminal too: so the kernel tells it of another size.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program).args(arguments).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.envs(environment.iter().copied()).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("start setsid");
        let mut parser = vt100::Parser::new(some(rows), some(columns), 0);
        parser.process(b"$ ");
        Self { outer, inner, before, parser, child }
    }

    /// Types these.
    pub fn press(&mut self, keys: &str) {
        self.outer.write_all(keys.as_bytes()).expect("type");
    }

    /// Gives the terminal another size, of which the kernel tells the program.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.read();
        self.parser.screen_mut().set_size(some(rows), some(columns));
        tcsetwinsize(&self.outer, size(rows, columns)).expect("the terminal's size");
    }

    /// The screen's rows, once `wanted` of them holds. What it says is printed when it never does, with the screen.
    #[track_caller]
    pub fn see(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        eventually(PATIENCE, || {
            let rows = self.rows();
            if wanted(&rows) { Ok(rows) } else { Err(format!("the screen does not show {what}:\n{}", rows.join("\n"))) }
        })
    }

    /// [`Terminal::see`] of a text in any row.
    #[track_caller]
    pub fn see_text(&mut self, text: &str) -> Vec<String> {
        self.see(text, |rows| rows.iter().any(|row| row.contains(text)))
    }

    /// The rows as they are now.
    pub fn rows(&mut self) -> Vec<String> {
        self.read();
        let (_, columns) = self.parser.screen().size();
        self.parser.screen().rows(0, columns.get()).collect()
    }

    /// Whether any cell has a colour of its own.
    pub fn is_coloured(&mut self) -> bool {
        self.read();
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        cells
            .filter_map(|(row, column)| screen.cell(row, column))
            .any(|cell| cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default)
    }

    /// Whether the program has the terminal to itself: raw, and the other screen.
    pub fn is_taken(&mut self) -> bool {
        self.read();
        self.modes() != of(&self.before) && self.parser.screen().alternate_screen()
    }

    /// Asserts that the terminal is as it was before the program: its modes, the screen, the cursor, the colours.
    #[track_caller]
    pub fn assert_given_back(&mut self) {
        self.read();
        assert_eq!(self.modes(), of(&self.before), "the terminal's modes");
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen(), "the other screen is still shown");
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        assert_eq!((screen.fgcolor(), screen.bgcolor()), (vt100::Color::Default, vt100::Color::Default), "the colours");
        assert!(screen.contents().starts_with("$ "), "what was there before: {}", screen.contents());
    }

    /// The program's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program has ended.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually(PATIENCE, || {
            // A program may wait for its last words to be read.
            let rows = self.rows();
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                _ => Err(format!("the program has not ended; it shows:\n{}", rows.join("\n"))),
            }
        })
    }

    fn read(&mut self) {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.outer.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => self.parser.process(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("read the terminal: {error}"),
            }
        }
    }

    fn modes(&self) -> Modes {
        of(&tcgetattr(self.inner.as_fd()).expect("the terminal's modes"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What of the modes can be compared: the flags for input, output, control and local, and the control characters.
type Modes = ([u32; 4], [u8; 32]);

fn of(termios: &Termios) -> Modes {
    let flags = [termios.input_flags.bits(), termios.output_flags.bits(), termios.control_flags.bits(), termios.local_flags.bits()];
    (flags, termios.control_chars)
}

fn some(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has some rows and columns")
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
