//! What an event makes of the model, and what is to be done about it. No I/O.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Focus, Message, Model, Order, Over};
use crate::{observe::snapshot::Snapshot, plan::State};

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A look at the daemon, or at the pinned maps.
    Looked(Box<Snapshot>),
    /// A look that failed, with the reason.
    Blind(String),
    /// What came of an order: a sentence of the daemon's, or why it refused.
    Answered(Result<String, String>),
    /// A key.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The process was told to end by this signal, or the terminal is gone (none).
    End(Option<i32>),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Show the model.
    Show,
    /// Show the model, and tell the daemon.
    Tell(Order),
    /// End, by this signal if there is one.
    End(Option<i32>),
}

const PAGE: isize = 10;

/// Takes the event in.
pub(super) fn update(model: &mut Model, event: Event) -> Action {
    match event {
        Event::Looked(snapshot) => model.look(*snapshot),
        Event::Blind(why) => model.failure = Some(why),
        Event::Answered(Ok(text)) => model.message = Some(Message { text, is_bad: false }),
        Event::Answered(Err(text)) => model.message = Some(Message { text, is_bad: true }),
        Event::Key(key) if key.kind != KeyEventKind::Release => return on_key(model, key),
        Event::Key(_) | Event::Resized => {}
        Event::End(signal) => return Action::End(signal),
    }
    Action::Show
}

fn on_key(model: &mut Model, key: KeyEvent) -> Action {
    model.message = None;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Action::End(None) } else { Action::Show };
    }
    match std::mem::take(&mut model.over) {
        Over::Question(order) => return on_answer(model, key.code, order),
        // Any key ends the help, and means nothing else.
        Over::Help => return Action::Show,
        Over::Nothing => {}
    }
    match key.code {
        KeyCode::Char('q') => return Action::End(None),
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => model.over = Over::Help,
        KeyCode::Up | KeyCode::Char('k') => model.step(-1),
        KeyCode::Down | KeyCode::Char('j') => model.step(1),
        KeyCode::PageUp => model.step(-PAGE),
        KeyCode::PageDown => model.step(PAGE),
        KeyCode::Home | KeyCode::Char('g') => model.step(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => model.step(isize::MAX),
        KeyCode::Tab | KeyCode::BackTab => {
            model.focus = if model.focus == Focus::Services { Focus::Workers } else { Focus::Services };
        }
        KeyCode::Enter | KeyCode::Right => model.focus = Focus::Workers,
        KeyCode::Esc | KeyCode::Left => model.focus = Focus::Services,
        KeyCode::Char('s') => match model.focus {
            Focus::Services => model.service_order = model.service_order.next(),
            Focus::Workers => model.worker_order = model.worker_order.next(),
        },
        KeyCode::Char('r') => match model.focus {
            Focus::Services => model.services_reversed = !model.services_reversed,
            Focus::Workers => model.workers_reversed = !model.workers_reversed,
        },
        KeyCode::Char('d') => ask(model, true),
        KeyCode::Char('u') => ask(model, false),
        _ => {}
    }
    Action::Show
}

/// Asks whether the chosen worker is to be drained, or says why that cannot be.
fn ask(model: &mut Model, drain: bool) {
    match question(model, drain) {
        Ok(order) => model.over = Over::Question(order),
        Err(text) => model.message = Some(Message { text, is_bad: true }),
    }
}

fn question(model: &Model, drain: bool) -> Result<Order, String> {
    if model.snapshot.daemon.is_none() {
        return Err("no daemon is running: there is nobody to tell; start it with `weir run`".to_owned());
    }
    if model.focus != Focus::Workers {
        return Err("choose a worker first: Tab or Enter leads to the workers".to_owned());
    }
    let (Some(service), Some(worker)) = (model.chosen_service(), model.chosen_worker()) else {
        return Err("this service has no worker to drain".to_owned());
    };
    if drain == (worker.state == State::Draining) {
        let state = if drain { "drains already" } else { "is not drained" };
        return Err(format!("worker {} {state}", worker.index));
    }
    Ok(Order { service: service.name.clone(), backend: worker.index, cookie: worker.cookie, drain })
}

fn on_answer(model: &mut Model, key: KeyCode, order: Order) -> Action {
    match key {
        KeyCode::Char('y' | 'Y') => {
            let backends = model.snapshot.service(&order.service).map_or(&[][..], |service| &service.backends);
            if backends.iter().any(|backend| (backend.index, backend.cookie) == (order.backend, order.cookie)) {
                return Action::Tell(order);
            }
            let text = format!("worker {} has gone; nothing was done", order.backend);
            model.message = Some(Message { text, is_bad: true });
        }
        KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
            model.message = Some(Message { text: "nothing was done".to_owned(), is_bad: false });
        }
        // A key that is no answer, such as Enter typed too fast, leaves the question.
        _ => model.over = Over::Question(order),
    }
    Action::Show
}
