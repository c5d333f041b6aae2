//! Carries a trace across a call, in the W3C headers `traceparent` and `tracestate`.
//!
//! A client layer calls [`inject_current`] on the request's headers while the call's span is
//! entered; a server layer creates its span, calls [`set_parent`] with the headers it received, and
//! enters the span only then. Both return at once when no traces are exported. Baggage is not
//! carried: it would put whatever a caller likes into every hop.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetrySpanExt, SetParentError};

const TRACEPARENT: &str = "traceparent";

/// Set once by `init`, before any call is served; a stale read costs one link of one trace.
static EXPORTING: AtomicBool = AtomicBool::new(false);

pub(crate) fn install() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// The trace that a caller sent in its headers; an empty context if it sent none, or one that is
/// not well formed.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    if !headers.contains_key(TRACEPARENT) {
        return Context::new();
    }
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Received(headers))
    })
}

/// Writes the trace of `context` into the headers of a call. Leaves them as they are if the context
/// holds no trace.
pub fn inject(context: &Context, headers: &mut HeaderMap) {
    if context.has_active_span() {
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(context, &mut Sent(headers));
        });
    }
}

/// Makes `span` a part of the trace that the caller sent in its headers. Call it before the span is
/// entered: a span that has started keeps its parent.
///
/// The caller also decides whether the trace is sampled. An edge that serves strangers may rather
/// begin a trace of its own, by not calling this.
pub fn set_parent(span: &Span, headers: &HeaderMap) {
    if !EXPORTING.load(Ordering::Relaxed) {
        return;
    }
    let parent = extract(headers);
    if !parent.has_active_span() {
        return;
    }
    if let Err(SetParentError::AlreadyStarted) = span.set_parent(parent) {
        tracing::warn!("a span was entered before its parent was set: this trace is in two pieces");
    }
}

/// Writes the trace of the span that is entered now into the headers of a call.
///
/// If that span is too detailed to be exported, the next one outwards that is exported counts.
pub fn inject_current(headers: &mut HeaderMap) {
    if EXPORTING.load(Ordering::Relaxed) {
        // `tracing-opentelemetry` activates a span's context while the span is entered.
        inject(&Context::current(), headers);
    }
}

struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator sends an empty `tracestate` when there is none; a header less is better.
        if value.is_empty() {
            return;
        }
        let name = HeaderName::try_from(key);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(TRACEPARENT),
            HeaderValue::from_static(traceparent),
        )])
    }

    #[test]
    fn a_context_survives_a_hop() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let mut received = headers(TRACE);
        received.insert("tracestate", HeaderValue::from_static("vendor=1"));
        let mut sent = HeaderMap::new();
        inject(&extract(&received), &mut sent);
        assert_eq!(sent, received);

        let mut sent = HeaderMap::new();
        inject(&extract(&headers(TRACE)), &mut sent);
        assert_eq!(sent, headers(TRACE), "no tracestate is made up");
    }

    #[test]
    fn what_is_not_a_trace_is_ignored() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let zeros = "00-00000000000000000000000000000000-0000000000000000-01";
        for bad in ["", "garbage", "00-xyz-b7ad6b7169203331-01", zeros] {
            let context = extract(&headers(bad));
            assert!(!context.has_active_span(), "{bad}");
            let mut sent = HeaderMap::new();
            inject(&context, &mut sent);
            assert!(sent.is_empty(), "{bad}");
        }
    }
}
