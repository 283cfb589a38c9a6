//! From HTTP to [`Request`] and back.

use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Json, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::report::{FdbReport, Stats, Status, TunnelReport};
use super::{Refusal, Reply, Request};

/// Which bridge to report on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    bridge: Option<String>,
}

/// The body of `POST /v1/accelerate`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) bridge: String,
    pub(super) on: bool,
}

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) error: String,
}

/// Done; nothing to report.
#[derive(Serialize)]
struct Done {}

type Sender = mpsc::Sender<Request>;
type Answer<T> = Result<Json<T>, Failure>;

pub(super) fn router(sender: Sender) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/v1/fdb", get(fdb))
        .route("/v1/tunnels", get(tunnels))
        .route("/v1/accelerate", post(accelerate))
        .route("/v1/down", post(down))
        .route("/v1/handover", post(handover))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "no such path".to_owned()))
        .method_not_allowed_fallback(async || {
            Failure(StatusCode::METHOD_NOT_ALLOWED, "not with this method".to_owned())
        })
        .with_state(sender)
}

async fn status(State(sender): State<Sender>) -> Answer<Status> {
    ask(&sender, Request::Status).await
}

async fn stats(State(sender): State<Sender>) -> Answer<Stats> {
    ask(&sender, Request::Stats).await
}

async fn fdb(
    State(sender): State<Sender>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Answer<FdbReport> {
    let bridge = selection?.0.bridge;
    ask(&sender, |reply| Request::Fdb { bridge, reply }).await
}

async fn tunnels(
    State(sender): State<Sender>,
    selection: Result<Query<Selection>, QueryRejection>,
) -> Answer<TunnelReport> {
    let bridge = selection?.0.bridge;
    ask(&sender, |reply| Request::Tunnels { bridge, reply }).await
}

async fn accelerate(
    State(sender): State<Sender>,
    switch: Result<Json<Switch>, JsonRejection>,
) -> Answer<Done> {
    let Json(Switch { bridge, on }) = switch?;
    ask(&sender, |reply| Request::Accelerate { bridge, on, reply }).await.map(done)
}

async fn down(State(sender): State<Sender>) -> Answer<Done> {
    ask(&sender, Request::Down).await.map(done)
}

async fn handover(State(sender): State<Sender>) -> Answer<Done> {
    ask(&sender, Request::Handover).await.map(done)
}

fn done(Json(()): Json<()>) -> Json<Done> {
    Json(Done {})
}

async fn ask<T>(sender: &Sender, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
    let (reply, answer) = oneshot::channel();
    sender.send(request(reply)).await.map_err(|_| Failure::stopping())?;
    Ok(Json(answer.await.map_err(|_| Failure::stopping())??))
}

/// An answer that is not a success.
struct Failure(StatusCode, String);

impl Failure {
    fn stopping() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the daemon is shutting down".to_owned())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::UnknownBridge { .. } => StatusCode::NOT_FOUND,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, refusal.to_string())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}
