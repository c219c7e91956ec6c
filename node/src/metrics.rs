//! The numbers that a node tells Prometheus: what it counts itself, and what it looks up at each scrape.
//!
//! Names are `starfish_<crate>_<thing>_<unit>`. No peer, path or key is ever a label: those have no bound.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::process::{Uptime, resident_bytes};

/// All numbers of one node.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    api_requests: Family<ApiLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ApiLabels {
    method: &'static str,
    status: u32,
}

impl Metrics {
    pub(crate) fn new(uptime: Uptime) -> Self {
        let mut registry = Registry::with_prefix("starfish");
        let api_requests = Family::default();
        registry.register("node_api_requests", "Answered requests", api_requests.clone());
        let metrics = Self { registry: Mutex::new(registry), api_requests };
        metrics.look_up("node_resident", "Memory held by the process", Some(Unit::Bytes), || {
            resident_bytes().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0)
        });
        metrics.look_up("node_uptime", "Time since the node was started", Some(Unit::Seconds), move || {
            i64::try_from(uptime.millis() / 1000).unwrap_or(i64::MAX)
        });
        metrics
    }

    /// Adds a number that `value` looks up at each scrape.
    pub(crate) fn look_up(
        &self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        value: impl Fn() -> i64 + Send + Sync + 'static,
    ) {
        let looked_up = Box::new(LookUp { name, help, unit, value });
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(looked_up);
    }

    pub(crate) fn api_request(&self, method: &Method, status: StatusCode) {
        // A client may invent methods; labels must not grow with them.
        let known = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::HEAD];
        let names = ["GET", "PUT", "POST", "DELETE", "HEAD"];
        let method =
            known.iter().zip(names).find(|(known, _)| *known == method).map_or("other", |(_, name)| name);
        self.api_requests.get_or_create(&ApiLabels { method, status: status.as_u16().into() }).inc();
    }

    /// The text that Prometheus reads.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

struct LookUp<F> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: F,
}

impl<F: Fn() -> i64 + Send + Sync + 'static> Collector for LookUp<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new((self.value)());
        let described =
            encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), gauge.metric_type())?;
        gauge.encode(described)
    }
}

impl<F> fmt::Debug for LookUp<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LookUp").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_and_looked_up() {
        let metrics = Metrics::new(Uptime::start());
        metrics.look_up("dht_peers", "Members connected now", None, || 3);
        metrics.api_request(&Method::GET, StatusCode::OK);
        metrics.api_request(&Method::GET, StatusCode::OK);
        metrics.api_request(&Method::from_bytes(b"ODD").unwrap(), StatusCode::NOT_FOUND);
        let text = metrics.encode().unwrap();
        for line in [
            "starfish_node_api_requests_total{method=\"GET\",status=\"200\"} 2",
            "starfish_node_api_requests_total{method=\"other\",status=\"404\"} 1",
            "starfish_dht_peers 3",
            "starfish_node_uptime_seconds 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
