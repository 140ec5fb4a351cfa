//! The daemon with real sockets: servers and clients in network namespaces, and Weir between them.

mod balance;
mod cli;
mod defence;
mod drain;
mod drops;
mod faults;
mod forward;
mod limits;
mod listeners;
mod live;
mod metrics;
mod moves;
mod notes;
mod page;
mod privilege;
mod programs;
mod prometheus;
mod queues;
mod relief;
mod reload;
mod restart;
mod restore;
mod survival;
mod timing;
mod top;
mod trace;
mod udp;
mod upsets;
mod views;
mod web;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    [
        balance::tests(),
        cli::tests(),
        defence::tests(),
        drain::tests(),
        drops::tests(),
        faults::tests(),
        forward::tests(),
        limits::tests(),
        listeners::tests(),
        metrics::tests(),
        moves::tests(),
        notes::tests(),
        privilege::tests(),
        prometheus::tests(),
        page::tests(),
        queues::tests(),
        relief::tests(),
        reload::tests(),
        restart::tests(),
        restore::tests(),
        survival::tests(),
        timing::tests(),
        top::tests(),
        trace::tests(),
        udp::tests(),
        upsets::tests(),
        views::tests(),
        web::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
