//! What the server answers.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde::Serialize;

use super::judge::{Judge, Refused};
use crate::run::reward::protocol::{Question, Refusal};

/// The most bytes of a request.
const LARGEST: usize = 64 << 20;

/// What the requests share.
#[derive(Clone)]
pub(super) struct Shared {
    /// One request at a time: they would share its threads.
    judge: Arc<Mutex<Judge>>,
    token: Option<blake3::Hash>,
}

impl Shared {
    pub(super) fn new(judge: Judge, token: Option<String>) -> Self {
        let token = token.map(|token| blake3::hash(token.as_bytes()));
        Self { judge: Arc::new(Mutex::new(judge)), token }
    }

    /// Says whether a request may be answered. Hashes are compared, in a time that tells nothing of the token.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.token else { return true };
        let said = headers.get(header::AUTHORIZATION).and_then(|said| said.to_str().ok());
        let said = said.and_then(|said| said.strip_prefix("Bearer "));
        said.is_some_and(|said| blake3::hash(said.as_bytes()) == token)
    }
}

/// Returns the routes.
pub(super) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/score", post(score))
        .route("/health", get(async || "ok\n"))
        .fallback(async || {
            refusal(StatusCode::NOT_FOUND, "there is POST /score and GET /health".into())
        })
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(shared)
}

async fn score(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if !shared.admits(&headers) {
        return refusal(StatusCode::UNAUTHORIZED, "the token is missing or another".into());
    }
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    // Off the thread that answers others.
    let judged = tokio::task::spawn_blocking(move || shared.judge.lock().answer(&question)).await;
    match judged {
        Ok(Ok(scores)) => json(StatusCode::OK, &scores),
        Ok(Err(Refused::Request(why))) => refusal(StatusCode::UNPROCESSABLE_ENTITY, why),
        Ok(Err(Refused::Model(why))) => refusal(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the model panicked".into()),
    }
}

fn refusal(status: StatusCode, error: String) -> Response {
    json(status, &Refusal { error })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("a body has nothing that JSON lacks");
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
