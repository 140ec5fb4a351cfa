//! The page as it is written, family by family.

use lb_common::abi::time_bounds;
use prometheus::{
    TextEncoder,
    proto::{self, Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::observe::snapshot::Histogram;

/// The text so far. Families are encoded one by one, so that only one is held as values: the largest of 100 services of 16 workers is
/// some megabytes of small strings.
pub(super) struct Page {
    pub text: String,
    encoder: TextEncoder,
}

impl Page {
    pub fn new() -> Self {
        Self { text: String::new(), encoder: TextEncoder::new() }
    }

    /// A family, left out if it turns out empty.
    pub fn write(&mut self, name: &str, help: &str, kind: Kind, fill: impl FnOnce(&mut Family)) -> Result<(), prometheus::Error> {
        let mut family = Family { kind, metrics: Vec::new() };
        fill(&mut family);
        if family.metrics.is_empty() {
            return Ok(());
        }
        let mut encodable = MetricFamily::default();
        encodable.set_name(name.to_owned());
        encodable.set_help(help.to_owned());
        encodable.set_field_type(match kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        encodable.set_metric(family.metrics);
        self.encoder.encode_utf8(&[encodable], &mut self.text)
    }

    /// A gauge of one series without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), prometheus::Error> {
        self.write(name, help, Kind::Gauge, |out| out.add(&[], value))
    }
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub(super) struct Family {
    kind: Kind,
    metrics: Vec<Metric>,
}

impl Family {
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        if matches!(self.kind, Kind::Counter) {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// A series of a histogram: cumulative counts, as Prometheus wants them. What is above the last bound is in the count of all alone.
    pub fn times(&mut self, labels: &[(&str, &str)], times: &Histogram) {
        let mut cumulative = 0;
        let buckets = time_bounds().into_iter().zip(&times.counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count());
        histogram.set_sample_sum(times.sum);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are f64: above 2^53 a count is off by one in 10^16")]
    pub fn count(&mut self, labels: &[(&str, &str)], value: u64) {
        self.add(labels, value as f64);
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(labels.collect())
}
