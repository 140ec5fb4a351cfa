//! Streams without a network; those over connections are in the tests of the module above.
use super::*;
use crate::observe::sample;

fn show(live: &Live, seconds: f64) {
    let mut snapshot = sample::small();
    snapshot.taken_at += seconds;
    live.show(None, &snapshot);
}

#[tokio::test]
async fn all_readers_are_sent_the_same_bytes() {
    let live = Live::new();
    show(&live, 0.0);
    let (opening, mut one) = live.subscribe();
    let (again, mut other) = live.subscribe();
    assert_eq!(opening.as_ptr(), again.as_ptr());
    assert!(opening.starts_with(b"event: opening\ndata: {") && opening.ends_with(b"}\n\n"));
    show(&live, 1.0);
    let (first, second) = (one.recv().await.unwrap(), other.recv().await.unwrap());
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert!(first.starts_with(b"event: moment\ndata: {"));
    // Who comes now is told of it in the opening.
    assert!(live.subscribe().0.len() > opening.len());
}

#[tokio::test]
async fn a_late_reader_is_let_go() {
    let live = Live::new();
    let place = Arc::clone(&live.places).try_acquire_owned().unwrap();
    let (opening, receiver) = live.subscribe();
    let mut reader = Reader { first: Some(opening), receiver, _place: place };
    assert!(reader.next().await.is_some());
    for second in 0..u8::try_from(BEHIND).unwrap() {
        show(&live, second.into());
    }
    assert!(reader.next().await.is_some());
    for second in 0..=u8::try_from(BEHIND).unwrap() {
        show(&live, second.into());
    }
    assert!(reader.next().await.is_none());
}
