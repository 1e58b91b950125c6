// SPDX-License-Identifier: MPL-2.0

//! Families of metrics, written by `prometheus-client`.

use std::collections::HashSet;
use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

/// What tells the samples of a family apart. Values come from few, or from names of which there are not many.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// See the module's description.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

pub(super) struct Counters<'a>(MetricEncoder<'a>);
pub(super) struct Gauges<'a>(MetricEncoder<'a>);
pub(super) struct Histograms<'a>(MetricEncoder<'a>);

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// The samples' names end with `_total`.
    pub(super) fn counters<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
    ) -> Result<Counters<'s>, fmt::Error> {
        Ok(Counters(self.family(name, help, MetricType::Counter)?))
    }

    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        self.counters(name, help)?.add(&[], value)
    }

    pub(super) fn gauges<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
    ) -> Result<Gauges<'s>, fmt::Error> {
        Ok(Gauges(self.family(name, help, MetricType::Gauge)?))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        self.gauges(name, help)?.add(&[], value as i64)
    }

    pub(super) fn histograms<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
    ) -> Result<Histograms<'s>, fmt::Error> {
        Ok(Histograms(self.family(
            name,
            help,
            MetricType::Histogram,
        )?))
    }
}

// Values are numbers.
#[expect(clippy::needless_pass_by_value)]
impl Counters<'_> {
    pub(super) fn add(
        &mut self,
        labels: Labels<'_>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        let write = |encoder: &mut MetricEncoder<'_>| {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        };
        match labels {
            [] => write(&mut self.0),
            labels => write(&mut self.0.encode_family(&labels)?),
        }
    }
}

#[expect(clippy::needless_pass_by_value)]
impl Gauges<'_> {
    pub(super) fn add(&mut self, labels: Labels<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
        match labels {
            [] => self.0.encode_gauge(&value),
            labels => self.0.encode_family(&labels)?.encode_gauge(&value),
        }
    }
}

impl Histograms<'_> {
    /// `buckets` are upper bounds, each with what is not above it and above the one before; the last is of all the rest.
    pub(super) fn add(
        &mut self,
        labels: Labels<'_>,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut encoder = self.0.encode_family(&labels)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

/// The same for who knows no OpenMetrics: there a counter's family has the name of its samples.
pub(super) fn classic(open: &str) -> String {
    let counter = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: HashSet<_> = open.lines().filter_map(counter).collect();
    let mut text = String::with_capacity(open.len() + 16 * counters.len());
    for line in open.lines().filter(|line| *line != "# EOF") {
        let named = ["# HELP ", "# TYPE "].into_iter().find_map(|start| {
            let (name, rest) = line.strip_prefix(start)?.split_once(' ')?;
            counters.contains(name).then_some((start, name, rest))
        });
        match named {
            Some((start, name, rest)) => {
                text.extend([start, name, "_total ", rest]);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_servers_get_counters_by_the_names_of_their_samples() {
        let open = "# HELP a Help a.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b B.\n# TYPE b gauge\nb 1\n# EOF\n";
        let expected = "# HELP a_total Help a.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b B.\n# TYPE b gauge\nb 1\n";
        assert_eq!(classic(open), expected);
    }
}
