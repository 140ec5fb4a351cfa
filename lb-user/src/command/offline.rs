//! What works without a daemon: reading the pinned maps, and taking the data plane away.

use lb_common::abi::ABI_VERSION;

use super::run::state_file;
use crate::{
    cli::GlobalArgs,
    daemon,
    dataplane::{self, Dataplane, Maps, Pins, ReasonNames},
    exit::{Exit, Failure, fail},
    listeners::helper::Helper,
    observe::{
        reader::{self, Facts},
        snapshot::{Interface, Snapshot, Watch},
    },
    plan::{self, Plan},
};

/// The pins, the maps and the plan of an instance whose data plane exists.
pub fn open(global: &GlobalArgs) -> Result<(Pins, Maps, Plan), Failure> {
    let pins = Pins::at(global.pin_dir());
    if !pins.exist() {
        let what = format!("instance `{}` has neither a daemon nor a data plane", global.instance);
        return Err(fail(Exit::NotRunning, what, "start one with `weir run --iface IF`, or name another with --instance"));
    }
    let maps = Maps::pinned(&pins, ABI_VERSION).map_err(daemon::failure)?;
    Ok((pins, maps, daemon::read_state(&state_file(global))))
}

/// The snapshot without a daemon: names from the state file, figures from the pinned maps.
pub fn snapshot(global: &GlobalArgs) -> Result<Snapshot, Failure> {
    let (pins, maps, plan) = open(global)?;
    let interfaces = pins.linked_interfaces().into_iter().map(|index| {
        let name = nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        // The daemon may have worked in another network namespace than this command: then the name is not to be had.
        Interface { name: name.unwrap_or_else(|| format!("if{index}")), index, mode: "unknown".to_owned() }
    });
    let shares = plan.services.iter().flat_map(|service| reader::shares(service, &plan::table(service))).collect();
    let kernel_drops = pins.link("kernel_drop").exists();
    let accept_latency = pins.link("accepted").exists().then(|| "measured".to_owned());
    let facts = Facts {
        instance: global.instance.clone(),
        interfaces: interfaces.collect(),
        shares,
        watch: Watch { accept_latency, kernel_drops, ..Watch::default() },
        handshakes: pins.link("socket_state").exists(),
        drop_reasons: if kernel_drops { dataplane::drop_reason_names() } else { ReasonNames::default() },
        ..Facts::default()
    };
    reader::snapshot(&plan, &maps, facts).map_err(daemon::failure)
}

/// Takes the data plane of a daemon that is gone away.
pub fn stop(global: &GlobalArgs) -> Result<String, Failure> {
    let (pins, maps, plan) = open(global)?;
    if let Ok(live) = maps.defence.live() {
        daemon::restore_settings(live);
    }
    let helper = Helper::start().map_err(super::run::no_helper)?;
    for group in plan::changes(&plan, &Plan::default()).detach {
        let socket = group.sockets.iter().find_map(|(_, inode, holders)| {
            let found = helper.holders(&[*inode], &[]).ok().and_then(|mut answer| answer.found.remove(inode));
            found.unwrap_or_else(|| holders.clone()).iter().find_map(|holder| helper.take(*inode, holder.pid, holder.fd).ok())
        });
        if let Some(socket) = socket {
            Dataplane::release_group(&pins, socket).map_err(daemon::failure)?;
        }
    }
    pins.remove_all().map_err(daemon::failure)?;
    // That there was no state file is as good.
    let _ = std::fs::remove_file(state_file(global));
    Ok("detached; nothing is left in the kernel".to_owned())
}
