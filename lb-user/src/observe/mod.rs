//! What is shown: readers make one [`snapshot::Snapshot`], and the metrics, the JSON, the terminal and the page all render that.

pub mod live;
pub mod prometheus;
pub mod queues;
pub mod rates;
pub mod reader;
pub mod snapshot;
mod table;
pub mod terminal;

#[cfg(test)]
pub(crate) mod sample;
