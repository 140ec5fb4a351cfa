//! Moments and what is remembered of them, by hand-made snapshots.
use serde_json::{Value, json, to_value};

use super::*;
use crate::observe::{rates::Rates, sample, snapshot::Snapshot};

/// [`sample::flooded`] after [`sample::small`], two seconds later.
fn flood() -> (Snapshot, Rates) {
    let before = sample::small();
    let mut after = sample::flooded();
    after.dataplane.uptime += 2.0;
    after.services[0].backends[1].established += 20;
    after.passed[0].packets += 8;
    let rates = Rates::between(&before, &after).unwrap();
    (after, rates)
}

#[test]
fn a_moment_is_the_snapshot_and_its_rates() {
    let (snapshot, rates) = flood();
    let moment = to_value(Moment::new(&snapshot, Some(&rates))).unwrap();
    let (web, of_web) = (&moment["services"][0], &rates.services["web"]);
    assert_eq!(web["rates"]["answered"]["packets"], 625_000.0);
    assert_eq!(web["rates"]["connections"], of_web.connections);
    assert_eq!(web["defence"]["mode"], "flood");
    assert_eq!(moment["passed"]["packets"], 4.0);
    let seen: f64 = rates.services.values().map(|service| service.seen.packets).sum();
    assert_eq!(moment["seen"]["packets"], seen + 4.0);
    // All sockets together, and each.
    assert_eq!(web["queues"]["accept"], json!({ "length": 3, "limit": 3 * 511 }));
    assert_eq!(web["workers"][2]["queues"]["syn"], json!({ "length": 4, "limit": 511 }));
    assert_eq!(web["workers"][2]["state"], "unserved");
    // Each drop says whose it is.
    let by = |reason: &str| {
        web["rates"]["drops"].as_array().unwrap().iter().find(|loss| loss["reason"] == reason).map(|loss| loss["by"].clone())
    };
    assert_eq!((by("cookie_refused"), by("tcp_csum")), (Some("weir".into()), None));
    let row = web["row"].as_array().unwrap();
    assert_eq!(row.len(), moment::COLUMNS.len());
    assert_eq!((&row[0], &row[2], &row[9]), (&json!(10.0), &json!(625_000.0), &json!(2.0)));
}

#[test]
fn what_is_not_known_is_not_shown() {
    let mut snapshot = sample::small();
    for backend in &mut snapshot.services[0].backends {
        (backend.queues, backend.accept_latency) = (crate::observe::snapshot::Queues::default(), None);
    }
    let moment = to_value(Moment::new(&snapshot, None)).unwrap();
    let web = &moment["services"][0];
    assert!(
        [&moment["seen"], &web["rates"], &web["queues"]["accept"], &web["workers"][0]["accept_p99"]].iter().all(|value| value.is_null())
    );
    assert!(web["row"].as_array().unwrap()[..9].iter().all(Value::is_null), "{}", web["row"]);
}

#[test]
fn a_moment_is_bounded_and_shows_trouble_first() {
    let before = sample::large(200, 40);
    let mut after = before.clone();
    after.dataplane.uptime += 1.0;
    after.services[170].defence.as_mut().unwrap().mode = "flood".to_owned();
    after.services[180].kernel_drops[0].packets += 500;
    after.services[3].backends[30].queues.accept_queue.as_mut().unwrap().length = 500;
    let rates = Rates::between(&before, &after).unwrap();
    let moment = Moment::new(&after, Some(&rates));
    let names: Vec<&str> = moment.services.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names.len(), SERVICES);
    // In the snapshot's order, so that what is looked at stays in its place.
    assert_eq!(names[SERVICES - 2..], ["tcp/0.0.0.0:170", "tcp/0.0.0.0:180"]);
    let shown = to_value(&moment).unwrap();
    assert_eq!(shown["folded"], 150);
    let workers = shown["services"][3]["workers"].as_array().unwrap();
    assert_eq!(workers.len(), WORKERS / SERVICES);
    assert!(workers.iter().any(|worker| worker["index"] == 30), "the full one is left out: {workers:?}");
    assert_eq!(shown["services"][3]["folded"], 40 - WORKERS / SERVICES);
    let size = serde_json::to_string(&moment).unwrap().len();
    assert!(size < 400_000, "{size} bytes each second");
}

#[test]
fn ten_minutes_are_remembered_and_no_more() {
    let mut history = History::default();
    let mut snapshot = sample::small();
    for second in 0..MOMENTS + 300 {
        snapshot.taken_at += 1.0;
        if second == 200 {
            snapshot.services.remove(1);
        }
        history.push(&Moment::new(&snapshot, None));
    }
    let told = to_value(&history).unwrap();
    // What left more than ten minutes ago is forgotten by name, too.
    assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), ["tcp/0.0.0.0:22", "web"]);
    let web = told["web"].as_array().unwrap();
    assert_eq!(web.len(), MOMENTS);
    assert_eq!(web[MOMENTS - 1][0], snapshot.taken_at);
    // The clock was set back: what was seen after now means nothing.
    snapshot.taken_at -= 5_000.0;
    history.push(&Moment::new(&snapshot, None));
    assert_eq!(to_value(&history).unwrap()["web"].as_array().unwrap().len(), 1);
}

#[test]
fn the_opening_explains_every_reason() {
    let moment = Moment::new(&sample::small(), None);
    let history = History::default();
    let opening = to_value(Opening::new(&history, Some(&moment))).unwrap();
    let reasons = opening["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), Reason::ALL.len());
    assert!(reasons.iter().all(|reason| reason["help"].as_str().unwrap().len() > 10));
    assert_eq!(opening["moment"]["instance"], "default");
}
