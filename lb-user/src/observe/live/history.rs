//! The ten minutes before.

use std::collections::{BTreeMap, VecDeque};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::moment::{Moment, Row};

/// How many moments are remembered: ten minutes of one each second.
pub const MOMENTS: usize = 600;
/// How far back they go, in seconds.
const SPAN: f64 = 600.0;

/// What is remembered of the last moments. Bounded: [`MOMENTS`] of at most [`super::SERVICES`] services, some 60 bytes each.
#[derive(Debug, Default)]
pub struct History {
    moments: VecDeque<Remembered>,
    /// The services' names, and how many moments have each.
    names: BTreeMap<String, (u32, usize)>,
    next: u32,
}

#[derive(Debug)]
struct Remembered {
    /// Seconds since 1970.
    at: f64,
    /// By the number of the service.
    rows: Vec<(u32, Row)>,
}

impl History {
    /// Remembers one more moment, and forgets what is older than ten minutes, or than a step back of the clock.
    pub fn push(&mut self, moment: &Moment) {
        while self.moments.len() >= MOMENTS || self.moments.front().is_some_and(|first| !(0.0..=SPAN).contains(&(moment.at - first.at))) {
            self.forget();
        }
        let rows = moment.services.iter().map(|service| (self.number(&service.name), service.row)).collect();
        self.moments.push_back(Remembered { at: moment.at, rows });
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some((number, moments)) = self.names.get_mut(name) {
            *moments += 1;
            return *number;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.names.insert(name.to_owned(), (number, 1));
        number
    }

    fn forget(&mut self) {
        let Some(Remembered { rows, .. }) = self.moments.pop_front() else { return };
        self.names.retain(|_, (number, moments)| {
            *moments -= usize::from(rows.iter().any(|(of, _)| of == number));
            *moments > 0
        });
    }
}

/// `{"name": [[at, row..], ..], ..}`
impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for (name, (number, _)) in &self.names {
            let rows = self.moments.iter().filter_map(|moment| {
                let (_, row) = moment.rows.iter().find(|(of, _)| of == number)?;
                Some(((moment.at * 10.0).round() / 10.0, row))
            });
            map.serialize_entry(name, &rows.collect::<Vec<_>>())?;
        }
        map.end()
    }
}
