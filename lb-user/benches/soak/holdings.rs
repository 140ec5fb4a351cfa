//! What the daemon and its data plane hold, and whether all of it is gone at the end.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    maps::{MapData, MapInfo, loaded_maps},
    programs::loaded_programs,
};
use lb_common::abi::TABLE_HEADER;

use crate::{
    judge::Holdings,
    support::{netns::Pair, servers::children, wait::eventually},
    world::World,
};

/// How long the kernel may take to free what nobody uses.
const FREED_WITHIN: Duration = Duration::from_secs(10);

impl Holdings {
    /// What is held now, the daemon running.
    pub fn read(world: &World) -> Self {
        let pid = world.weir.pid();
        let descriptors =
            |process: Option<u32>| process.and_then(|process| fs::read_dir(format!("/proc/{process}/fd")).ok()).map_or(0, Iterator::count);
        let root = world.weir.pins();
        let pins = paths(&root);
        let (programs, maps) = in_kernel(&pins);
        let mut pins: Vec<_> = pins.iter().filter_map(|path| Some(path.strip_prefix(&root).ok()?.display().to_string())).collect();
        pins.sort();
        let tables = maps_of_size(world.settings.table + TABLE_HEADER);
        Self { descriptors: [descriptors(Some(pid)), descriptors(children(pid).first().copied())], pins, programs, tables, maps }
    }
}

/// The daemon's own memory (`RssAnon`), in KiB.
pub fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Stops Weir, and waits until nothing of it is left; what is left in the end is told.
pub fn stop_and_look(world: &mut World) -> Result<(), String> {
    let stopped = world.weir.cli_output(&["stop"]);
    if !stopped.status.success() {
        return Err(format!("`weir stop` failed: {}", String::from_utf8_lossy(&stopped.stderr).trim()));
    }
    let daemon = world.weir.pid();
    if world.weir.terminated() != Some(0) {
        return Err("the daemon did not end well after `weir stop`".to_owned());
    }
    let left = || -> Vec<String> {
        let mut left: Vec<String> = paths(&world.weir.pins()).iter().map(|path| path.display().to_string()).collect();
        for (what, size) in [("tables", world.settings.table + TABLE_HEADER), ("maps of services", world.settings.services + 1)] {
            let count = maps_of_size(size);
            if count > 0 {
                left.push(format!("{count} {what}"));
            }
        }
        let device = world.pair.server.ip(&format!("-d link show dev {}", Pair::SERVER_DEVICE));
        if device.contains("xdp") {
            left.push("an XDP program".to_owned());
        }
        if Path::new(&format!("/proc/{daemon}")).exists() {
            left.push("the daemon's process".to_owned());
        }
        left
    };
    let is_gone = || if left().is_empty() { Ok(()) } else { Err(format!("left after `weir stop`: {:?}", left())) };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually(FREED_WITHIN, is_gone))).map_err(|_| format!("{:?}", left()))
}

/// Programs that use a map that is pinned here, and the maps that those use.
fn in_kernel(pins: &[PathBuf]) -> (usize, usize) {
    // Beside programs and links: the kernel would tell of those as if they were maps.
    let is_map = |pin: &&PathBuf| {
        let directory = pin.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().starts_with("abi-"));
        directory == Some(true) || pin.file_name().is_some_and(|name| name == "sockets")
    };
    let pinned: BTreeSet<u32> = pins.iter().filter(is_map).filter_map(|pin| MapInfo::from_pin(pin).ok()).map(|map| map.id()).collect();
    // A program of another instance may end while it is looked at.
    let used = loaded_programs().flatten().filter_map(|program| program.map_ids().ok().flatten());
    let own: Vec<Vec<u32>> = used.filter(|maps| maps.iter().any(|map| pinned.contains(map))).collect();
    let maps: BTreeSet<u32> = own.iter().flatten().copied().chain(pinned).collect();
    (own.len(), maps.len())
}

fn maps_of_size(entries: u32) -> usize {
    loaded_maps().filter_map(Result::ok).filter(|map| map.max_entries() == entries).count()
}

/// All files below a directory; none when it is not there.
fn paths(directory: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    let below = |entry: &fs::DirEntry| {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) { paths(&entry.path()) } else { vec![entry.path()] }
    };
    entries.iter().flat_map(below).collect()
}

/// Keeps a table of a service from being freed: a deliberate fault.
pub fn keep_a_table(world: &World) -> Option<MapData> {
    let size = world.settings.table + TABLE_HEADER;
    let table = loaded_maps().filter_map(Result::ok).find(|map| map.max_entries() == size)?;
    MapData::from_id(table.id()).ok()
}
