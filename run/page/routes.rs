//! What a dashboard answers. Nothing of the file system is served by its name.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{self, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::{StreamExt, wrappers::BroadcastStream};

use super::{address::is_loopback_host, html, prometheus, recording::Recording};

/// Updates that a slow client may lag behind. The versions tell it that it has missed some.
const BACKLOG: usize = 64;
/// Clients that are told of updates at a time.
const MOST_STREAMS: usize = 32;

/// What the requests share.
#[derive(Clone)]
pub(super) struct Shared {
    recording: Arc<Mutex<Recording>>,
    /// Each update as JSON; `None` ends the streams.
    updates: broadcast::Sender<Option<Arc<str>>>,
    streams: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(recording: Recording) -> Self {
        Self {
            recording: Arc::new(Mutex::new(recording)),
            updates: broadcast::channel(BACKLOG).0,
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        }
    }

    /// Reads what is new, tells every client, and says whether there is yet more.
    pub(super) fn poll(&self) -> bool {
        let (delta, more) = self.recording.lock().poll();
        if let Some(delta) = delta {
            let text = serde_json::to_string(&delta).expect("names are strings");
            // Where nobody listens, nobody misses it.
            self.updates.send(Some(text.into())).ok();
        }
        more
    }

    /// Ends the streams of updates.
    pub(super) fn end(&self) {
        self.updates.send(None).ok();
    }
}

/// Returns the routes.
pub(super) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/", get(async || content("text/html; charset=utf-8", html::live())))
        .route("/page.css", get(async || content("text/css; charset=utf-8", html::STYLE)))
        .route("/page.js", get(async || content("text/javascript; charset=utf-8", html::SCRIPT)))
        .route("/data", get(data))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "there is nothing here; the page is at /\n"))
        .with_state(shared)
        .layer(middleware::from_fn(guard))
}

fn content(kind: &'static str, text: impl IntoResponse) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

async fn data(State(shared): State<Shared>) -> Response {
    let text = serde_json::to_string(&shared.recording.lock().snapshot());
    content("application/json", text.expect("names are strings"))
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let text = prometheus::exposition(&shared.recording.lock());
    content(prometheus::CONTENT_TYPE, text)
}

async fn events(State(shared): State<Shared>) -> Response {
    let Ok(permit) = shared.streams.try_acquire_owned() else {
        let said = format!("{MOST_STREAMS} clients are listening already; close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, said).into_response();
    };
    let updates = BroadcastStream::new(shared.updates.subscribe());
    let events = updates
        // What a lagging client has missed shows in the next version.
        .filter_map(Result::ok)
        .take_while(Option::is_some)
        .map(move |update| {
            let _until_the_client_goes = &permit;
            Ok::<_, Infallible>(Event::default().data(&*update.unwrap_or_default()))
        });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// Refuses requests that name another host, and says what the answer may be used for.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_loopback_host) {
        let said = "the Host of a request must be localhost, 127.0.0.1 or [::1]\n";
        return (StatusCode::FORBIDDEN, said).into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, html::LIVE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
