//! `/api/v1/events`: what the page shows, once a second, as server-sent events.
//!
//! One task looks each second, and more rarely while nobody reads: who opens the page sees the ten minutes before. What it sees is made into
//! text once, and all streams send the same bytes. A stream whose reader is [`BEHIND`] moments late ends; a browser then begins anew.
//!
//! | event     | data                                                                |
//! |-----------|---------------------------------------------------------------------|
//! | `opening` | [`Opening`]: the names of things, the past and the present; once    |
//! | `moment`  | [`Moment`]                                                          |
//! | `trouble` | a text: why there is no moment                                      |

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{Connection, Source, Unavailable};
use crate::observe::{
    live::{History, Moment, Opening},
    rates::Rates,
    snapshot::Snapshot,
};

/// How many streams there are at a time.
pub const STREAMS: usize = 32;
/// How many moments a reader may be late.
pub const BEHIND: usize = 4;
/// How often it is looked while somebody reads.
const STEP: Duration = Duration::from_secs(1);
/// How much of the time may go into that: one part in this many.
const SHARE: u32 = 100;
/// How often it is looked while nobody does.
const IDLE_STEP: Duration = Duration::from_secs(5);
/// How much of the time may go into that.
const IDLE_SHARE: u32 = 1000;
/// When to come again if there is no place, in seconds.
const LATER: &str = "10";

/// What the streams are fed from.
#[derive(Debug, Clone)]
pub(super) struct Live {
    shared: Arc<Mutex<Shared>>,
    places: Arc<Semaphore>,
    /// Somebody has begun to read.
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Shared {
    history: History,
    moment: Option<Moment>,
    /// The text of the opening, made for the first who asks after a moment.
    opening: Option<Bytes>,
    sender: broadcast::Sender<Bytes>,
}

impl Live {
    pub fn new() -> Self {
        let (sender, _) = broadcast::channel(BEHIND);
        let shared = Shared { history: History::default(), moment: None, opening: None, sender };
        Self { shared: Arc::new(Mutex::new(shared)), places: Arc::new(Semaphore::new(STREAMS)), arrived: Arc::default() }
    }

    /// Looks again and again, for ever. Where looking is dear it is rarer.
    pub async fn watch(self, source: Source) {
        let mut before: Option<Arc<Snapshot>> = None;
        loop {
            let begun = Instant::now();
            let event = match source.snapshot().await {
                Ok(snapshot) => {
                    let (live, snapshot, earlier) = (self.clone(), Arc::new(snapshot), before.take());
                    before = Some(Arc::clone(&snapshot));
                    spawn_blocking(move || live.show(earlier.as_deref(), &snapshot)).await.map_err(Unavailable::from)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = event {
                self.lock().send(event_text("trouble", &error.to_string()));
            }
            let took = begun.elapsed();
            sleep_until(begun + STEP.max(took * SHARE)).await;
            if !self.has_readers() {
                tokio::select! {
                    () = sleep_until(begun + IDLE_STEP.max(took * IDLE_SHARE)) => {}
                    () = self.arrived.notified() => {}
                }
            }
        }
    }

    /// Remembers a snapshot's moment and sends it.
    fn show(&self, before: Option<&Snapshot>, snapshot: &Snapshot) {
        let rates = before.and_then(|before| Rates::between(before, snapshot));
        let moment = Moment::new(snapshot, rates.as_ref());
        let text = self.has_readers().then(|| event_text("moment", &moment));
        let mut shared = self.lock();
        shared.history.push(&moment);
        shared.moment = Some(moment);
        shared.opening = None;
        // Who has come since has this moment in the opening.
        if let Some(text) = text {
            shared.send(text);
        }
    }

    fn has_readers(&self) -> bool {
        self.lock().sender.receiver_count() > 0
    }

    /// The opening, and all that comes after it.
    fn subscribe(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let mut shared = self.lock();
        let receiver = shared.sender.subscribe();
        let Shared { history, moment, opening, .. } = &mut *shared;
        let text = opening.get_or_insert_with(|| event_text("opening", &Opening::new(history, moment.as_ref())));
        (text.clone(), receiver)
    }

    /// Never held across an await. What a panic left behind is replaced with the next moment.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Nobody may be there.
    fn send(&self, text: Bytes) {
        let _ = self.sender.send(text);
    }
}

/// JSON has no line breaks: the data is one line.
fn event_text(event: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_else(|error| serde_json::Value::from(error.to_string()).to_string());
    let event = if json.starts_with('"') { "trouble" } else { event };
    Bytes::from(format!("event: {event}\ndata: {json}\n\n"))
}

/// A stream of events, until its reader leaves or is late.
pub(super) async fn events(State(live): State<Live>, Extension(connection): Extension<Arc<Connection>>) -> Result<Response, Unavailable> {
    let Ok(place) = Arc::clone(&live.places).try_acquire_owned() else {
        let text = format!("{STREAMS} pages are open already, and no more are served at a time\n");
        return Ok((StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, HeaderValue::from_static(LATER))], text).into_response());
    };
    connection.lives_on();
    let of_thread = live.clone();
    let (opening, receiver) = spawn_blocking(move || of_thread.subscribe()).await?;
    live.arrived.notify_one();
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // For nginx in front, which otherwise gathers what it passes on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let stream = stream::unfold(Reader { first: Some(opening), receiver, _place: place }, async |mut reader| {
        let text = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), reader))
    });
    Ok((headers.map(|(name, value)| (name, HeaderValue::from_static(value))), Body::from_stream(stream)).into_response())
}

/// Who reads a stream.
struct Reader {
    first: Option<Bytes>,
    receiver: broadcast::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// None if the reader is late: it is let go.
    async fn next(&mut self) -> Option<Bytes> {
        match self.first.take() {
            Some(opening) => Some(opening),
            None => self.receiver.recv().await.ok(),
        }
    }
}

#[cfg(test)]
mod tests;
