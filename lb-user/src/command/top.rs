//! `weir top`: the snapshot as a live view of the terminal.
//!
//! A thread looks at the daemon as `weir status` does, another reads the keys, a third waits for signals; what they find are events, and
//! the loop here alone has the [`model::Model`] and the screen.

mod model;
pub mod screen;
mod sorting;
mod update;
mod view;

use std::{
    io::{IsTerminal as _, stdin, stdout},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event;

use self::{
    model::{Model, Order},
    screen::Screen,
    update::{Action, Event, update},
    view::Theme,
};
use super::{order, status::picture};
use crate::{
    api::protocol::Request,
    cli::{GlobalArgs, TopArgs},
    exit::{Exit, Failure, OrFail as _, fail},
    observe::{snapshot::Snapshot, terminal::Style},
};

/// How many events may wait for the loop.
const WAITING: usize = 64;
/// After so many intervals without a look what is shown is called old.
const LATE: u32 = 3;

/// Shows the daemon's picture, or the one that `offline` makes where there is no daemon, until the user quits.
///
/// The first look happens before the screen is taken, so that what is wrong with it is said as `weir status` says it.
pub fn run(
    global: &GlobalArgs,
    arguments: &TopArgs,
    offline: impl Fn() -> Result<Snapshot, Failure> + Send + 'static,
) -> Result<Exit, Failure> {
    if global.json {
        return Err(fail(Exit::Usage, "a live view has no JSON", "`weir status --json` prints the same figures once"));
    }
    let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
    if !stdin().is_terminal() || !stdout().is_terminal() || is_dumb {
        return Err(fail(Exit::Usage, "weir top needs a terminal", "`weir status` prints the same figures once, to anywhere"));
    }
    let mut model = Model::of(picture(global, &offline)?);

    let (events, happened) = sync_channel(WAITING);
    let signals = ending();
    // Every thread made from here on leaves these to the one that waits for them.
    signals.thread_block().or_fail(Exit::Unexpected, "please report this")?;
    let theme = Theme { colour: Style::of_stdout().colour };
    let mut screen = Screen::open().or_fail(Exit::Unexpected, "`weir status` needs no control of the terminal")?;
    let (orders, told) = channel();
    let (global, interval) = (global.clone(), Duration::from_secs(arguments.interval));
    for work in [
        Box::new({
            let events = events.clone();
            move || look(&global, offline, interval, &told, &events)
        }) as Box<dyn FnOnce() + Send>,
        Box::new({
            let events = events.clone();
            move || read_keys(&events)
        }),
        Box::new(move || wait_for_signals(&signals, &events)),
    ] {
        thread::spawn(work);
    }
    let ended = show(&mut model, &mut screen, theme, interval * LATE, &happened, &orders);
    drop(screen);
    if let Some(signal) = ended.or_fail(Exit::Unexpected, "`weir status` needs no control of the terminal")? {
        die(signal);
    }
    Ok(Exit::Success)
}

/// The loop: the signal that ended it, or none if the user quit.
fn show(
    model: &mut Model,
    screen: &mut Screen,
    theme: Theme,
    patience: Duration,
    happened: &Receiver<Event>,
    orders: &Sender<Order>,
) -> std::io::Result<Option<i32>> {
    let mut looked = Instant::now();
    loop {
        screen.draw(|frame| view::draw(frame, model, theme))?;
        let first = match happened.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        // What has come since is taken in before the next frame: a key held down does not queue frames.
        for event in first.into_iter().chain(happened.try_iter()) {
            if matches!(event, Event::Looked(_)) {
                looked = Instant::now();
            }
            match update(model, event) {
                Action::Show => {}
                // The thread that looks has ended only if this process ends.
                Action::Tell(order) => drop(orders.send(order)),
                Action::End(signal) => return Ok(signal),
            }
        }
        if looked.elapsed() >= patience && model.failure.is_none() {
            update(model, Event::Blind(format!("nothing for more than {} s", patience.as_secs())));
        }
    }
}

/// Looks at once after an order, else each interval.
fn look(
    global: &GlobalArgs,
    offline: impl Fn() -> Result<Snapshot, Failure>,
    interval: Duration,
    told: &Receiver<Order>,
    events: &SyncSender<Event>,
) {
    loop {
        match told.recv_timeout(interval) {
            Ok(Order { service, backend, drain, .. }) => {
                let answer = order(global, &Request::Drain { service, backend, drain });
                let answer = answer.map_err(|failure| failure.render().replace('\n', " "));
                if events.send(Event::Answered(answer)).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let event = match picture(global, &offline) {
            Ok(snapshot) => Event::Looked(Box::new(snapshot)),
            Err(failure) => Event::Blind(failure.to_string()),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn read_keys(events: &SyncSender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) => Event::Key(key),
            Ok(event::Event::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            // Nobody can press a key any more.
            Err(_) => Event::End(None),
        };
        let is_last = matches!(event, Event::End(_));
        if events.send(event).is_err() || is_last {
            return;
        }
    }
}

/// Signals that end a program: the terminal is to be given back first.
fn ending() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect()
}

fn wait_for_signals(signals: &SigSet, events: &SyncSender<Event>) {
    if let Ok(signal) = signals.wait() {
        // Who does not listen any more is ending.
        let _ = events.send(Event::End(Some(signal as i32)));
    }
}

/// Ends this process by the signal, as it would have ended had it not waited for it: who started it sees why.
fn die(signal: i32) {
    let Ok(signal) = Signal::try_from(signal) else { return };
    let _ = nix::sys::signal::raise(signal);
    let _ = SigSet::from(signal).thread_unblock();
}

#[cfg(test)]
mod tests;
