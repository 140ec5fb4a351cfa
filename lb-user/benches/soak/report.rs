//! The report, in Markdown.

use std::{
    fmt::{self, Write as _},
    fs,
    time::Duration,
};

use crate::{
    disturb::Disturbance,
    judge::{EQUATIONS, MAY_GROW},
    load::RATES,
    options::Options,
    record::Record,
    support::netns::tool,
    world::SERVICES,
};

/// Writes it.
pub fn write(record: &Record, options: &Options, ended: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, record, options, ended)
        .and_then(|()| disturbances(&mut text, record))
        .and_then(|()| connections(&mut text, record))
        .and_then(|()| holdings(&mut text, record))
        .and_then(|()| equations(&mut text, record))
        .and_then(|()| verdict(&mut text, record));
    text
}

fn head(text: &mut String, record: &Record, options: &Options, ended: &str) -> fmt::Result {
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let of_machine = |file: &str, field: &str| {
        let all = fs::read_to_string(file).unwrap_or_default();
        all.lines().find_map(|line| Some(line.strip_prefix(field)?.trim_start_matches([':', ' ', '\t']).to_owned())).unwrap_or_default()
    };
    writeln!(text, "# Soak\n")?;
    writeln!(
        text,
        "`cargo xtask soak --minutes {} --seed {}`: rounds of steady load on real servers, in each of which something is done to Weir or to\n\
         the workers, in a third of them in the midst of a flood. After each round the load rests, and everything is counted.\n",
        options.length.as_secs() / 60,
        options.seed
    )?;
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(text, "| date | {} |", tool("date", &["-u", "+%F"]).trim())?;
    writeln!(
        text,
        "| machine | {processors} processors ({}), {} of memory |",
        of_machine("/proc/cpuinfo", "model name").trim_start_matches([' ', '\t', ':']),
        of_machine("/proc/meminfo", "MemTotal")
    )?;
    writeln!(text, "| kernel | {} |", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim())?;
    writeln!(text, "| seed | {} |", options.seed)?;
    writeln!(text, "| length | {:.1} minutes, {} rounds; {ended} |", record.start.elapsed().as_secs_f64() / 60.0, record.rounds)?;
    writeln!(
        text,
        "| load | {} connections a second in all, to workers of our own and to nginx, over IPv4 and IPv6 |\n",
        RATES.iter().sum::<u32>()
    )
}

fn disturbances(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "## What was done\n\n| disturbance | times |\n|---|---:|")?;
    for disturbance in Disturbance::ALL {
        writeln!(text, "| {} | {} |", disturbance.label(), record.disturbances.get(&disturbance).copied().unwrap_or(0))?;
    }
    for (kind, (floods, packets)) in &record.floods {
        writeln!(text, "| a flood of {kind} on top ({packets} packets in all) | {floods} |")?;
    }
    writeln!(text, "| the cookie key was seen to be another one | {} |\n", record.rotations)
}

fn connections(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "## Connections\n\n| service | attempted | completed |\n|---|---:|---:|")?;
    for (service, name) in SERVICES.iter().enumerate() {
        writeln!(text, "| {name} | {} | {} |", record.attempted[service], record.completed[service])?;
    }
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    writeln!(text, "| all | {} | {} |\n", sum(&record.attempted), sum(&record.completed))?;
    writeln!(text, "| lost or late | |\n|---|---:|")?;
    let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
    let rows = [
        ("lost with a killed worker that had accepted them", record.lost_with_workers.to_string()),
        ("**lost, unexplained**", record.unexplained.to_string()),
        ("times that an open connection was asked whether it lives", record.held_checks.to_string()),
        ("open connections lost, all with their killed worker", record.held_lost.to_string()),
        ("SYNs sent again as a listener was closed (at most one for each)", record.late.by_closing.to_string()),
        ("SYNs sent again in a flood (at most 1 of 100 connections, and 1)", record.late.by_flood.to_string()),
        ("connections slower than 0.9 s", record.slow.to_string()),
        ("of these in rounds in which nothing was sent again: the machine's", record.late.by_machine.to_string()),
        ("slowest in calm", seconds(record.slowest_calm)),
        ("slowest in a round with a flood", seconds(record.slowest_flood)),
    ];
    for (what, count) in rows {
        writeln!(text, "| {what} | {count} |")?;
    }
    writeln!(text)
}

fn holdings(text: &mut String, record: &Record) -> fmt::Result {
    let [start, middle, end] = record.memories();
    writeln!(text, "## What the daemon holds\n")?;
    writeln!(text, "Its own memory (RssAnon): {start} KiB at the start, {middle} KiB in the middle, {end} KiB at the end.")?;
    if let Some(life) = record.longest_life() {
        let warm = life.warm();
        let (first, most) = (warm.first().copied().unwrap_or(0), warm.iter().max().copied().unwrap_or(0));
        writeln!(
            text,
            "The daemon that lived longest was watched for {:.1} minutes: {first} KiB once it was warm (30 s), at most {most} KiB later, {} KiB\n\
             at its end; {MAY_GROW} KiB more than the first would be a leak. {} daemons were watched, each by that bound.\n",
            life.length().as_secs_f64() / 60.0,
            warm.last().copied().unwrap_or(0),
            record.lives.len()
        )?;
    }
    let Some(held) = &record.holdings else { return Ok(()) };
    writeln!(
        text,
        "After every round, and whichever daemon it was: {} descriptors of the daemon and {} of its helper, {} pins, {} programs, {} maps and\n\
         {} tables of services, as after the first. {}\n",
        held.descriptors[0],
        held.descriptors[1],
        held.pins.len(),
        held.programs,
        held.maps,
        held.tables,
        if record.left_nothing { "After `weir stop`: none, no process, and no program on the interface." } else { "" }
    )
}

fn equations(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "## What has to add up\n\n| | equation | checked |\n|---|---|---:|")?;
    for ((name, equation), checked) in EQUATIONS.iter().zip(record.equations) {
        writeln!(text, "| {name} | {equation} | {checked} |")?;
    }
    writeln!(text)
}

fn verdict(text: &mut String, record: &Record) -> fmt::Result {
    writeln!(text, "## Verdict\n")?;
    if record.broken.is_empty() {
        return writeln!(text, "No invariant broke.");
    }
    writeln!(text, "Invariants that broke: {}\n", record.broken.len())?;
    for broken in &record.broken {
        writeln!(text, "- at {:.1} s, round {}, after: {}. {}", broken.at.as_secs_f64(), broken.round, broken.after, broken.what)?;
    }
    Ok(())
}
