//! Parses metrics in Prometheus' text format, independently of the library that the program uses.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels, as they are written.
#[derive(Debug)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    /// Type of each metric family, by name.
    families: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses the text format 0.0.4 and asserts its rules.
    pub fn parse(text: &str) -> Self {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(help.len() > 10 && helped.insert(name.to_owned()), "{line}");
            } else if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(helped.contains(name), "no help: {line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(name.starts_with("clerk2pg_") || name.starts_with("process_"), "{line}");
                assert_eq!(families.insert(name.to_owned(), kind.to_owned()), None, "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let base = name.split('{').next().unwrap();
                let is_known = families.contains_key(base)
                    || ["_bucket", "_sum", "_count"].iter().any(|suffix| {
                        let family = base.strip_suffix(suffix).and_then(|family| families.get(family));
                        family.is_some_and(|kind| kind == "histogram")
                    });
                assert!(is_known, "a sample of no family: {line}");
                assert!(
                    !line.contains('@') && !line.contains("user_2") && !line.contains("user_3"),
                    "{line}"
                );
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert_eq!(samples.insert(name.to_owned(), value), None, "twice: {line}");
            }
        }
        Self { samples, families }
    }

    pub fn find(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    #[track_caller]
    pub fn value(&self, name: &str) -> f64 {
        self.find(name)
            .unwrap_or_else(|| panic!("there is no {name}: {:#?}", self.samples))
    }

    /// Returns all samples of a metric, by labels.
    pub fn all(&self, name: &str) -> BTreeMap<String, f64> {
        let of = |sample: &String| {
            Some(
                sample
                    .strip_prefix(name)?
                    .strip_prefix('{')?
                    .strip_suffix('}')?
                    .to_owned(),
            )
        };
        let samples = self.samples.iter();
        samples
            .filter_map(|(sample, value)| Some((of(sample)?, *value)))
            .collect()
    }

    pub fn families(&self) -> Vec<&str> {
        self.families.keys().map(String::as_str).collect()
    }

    /// Asserts the rules of a histogram: buckets never fall, and the last one counts everything.
    pub fn assert_histogram(&self, name: &str, label: &str) {
        let mut buckets: Vec<(f64, f64)> = self
            .all(&format!("{name}_bucket"))
            .iter()
            .filter(|(labels, _)| labels.contains(label))
            .map(|(labels, value)| {
                let bound = labels.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
                (bound.replace("+Inf", "inf").parse().unwrap(), *value)
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            buckets.len() > 5 && buckets.is_sorted_by(|a, b| a.1 <= b.1),
            "{buckets:?}"
        );
        let count = self.value(&format!("{name}_count{{{label}}}"));
        assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, count));
    }
}
