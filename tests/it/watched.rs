//! Watching a daemon from outside: its probes, its page, and its metrics, which are read with a parser of the tests' own.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{PATIENCE, World, eventually},
    process::Process,
};

/// Any port.
pub const ANY: (&str, &str) = ("CLERK2PG_HTTP__LISTEN", "127.0.0.1:0");

const LISTENING: &str = "listening for probes, scrapes and people address=\"http://";

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The headers, in small letters.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(header, _)| *header == name)
            .map(|(_, value)| value)
            .next()
    }
}

/// Sends a request as it stands, and reads to the end; none where nobody is there.
pub async fn send(address: &str, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.expect("no end of an answer").unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{request:?} gave {text:?}"));
    Some(Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

pub async fn get(address: &str, path: &str) -> Option<Answer> {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

/// A daemon that can be watched.
pub struct Watched {
    pub daemon: Process,
    pub address: String,
}

impl Watched {
    pub async fn new(daemon: Process) -> Self {
        daemon.says(LISTENING).await;
        let address = addresses(&daemon).pop().unwrap();
        Self { daemon, address }
    }

    /// A daemon that does a full sync at its start, and then nothing but what it is told.
    pub async fn obedient(world: &World, environment: &[(&str, &str)]) -> Self {
        let obedient = [ANY, ("CLERK2PG_SCHEDULE__FULL", "")];
        Self::new(world.follow(&[&obedient, environment].concat())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(&self.address, path).await.expect("nobody listens")
    }

    /// Status and text of a probe.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).await;
        assert!(answer.head.contains("content-type: text/plain"), "{answer:?}");
        (answer.status, answer.body.trim_end().to_owned())
    }

    /// Waits until it is ready, and says so in these words.
    pub async fn is_ready(&self, says: &str) {
        self.becomes(200, says).await;
    }

    /// Waits until it is not ready, for this reason.
    pub async fn is_not_ready(&self, why: &str) {
        self.becomes(503, why).await;
    }

    async fn becomes(&self, status: u16, part: &str) {
        eventually(&format!("{status}, {part}"), async || {
            let (now, says) = self.probe("/readyz").await;
            now == status && says.contains(part)
        })
        .await;
    }

    pub async fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").await;
        let form = Some("text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, form),
            "{answer:?}"
        );
        Metrics::parse(&answer.body)
    }
}

/// Where a daemon listened so far.
pub fn addresses(daemon: &Process) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter_map(|line| line.split_once(LISTENING));
    lines.map(|(_, rest)| rest.trim_end_matches("/\"").to_owned()).collect()
}

/// Samples by their names with labels, as they are written.
#[derive(Debug)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    /// Name and type of each family.
    families: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads the text format 0.0.4, and holds it to its rules.
    fn parse(text: &str) -> Self {
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

    /// All samples of a name, by their labels.
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

    /// Holds a histogram to its rules: buckets never fall, and the last one counts all.
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
