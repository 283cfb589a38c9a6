//! From HTTP to the [`Driver`] and back. Docker sends its bodies without a content type, or with one
//! that is not JSON's, and takes a failure from the body: the status is 200 then, too.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ipam::{self, Ipam};
use super::protocol::{Activated, Capabilities, Done, OperInfo, Problem};
use super::{Driver, Error};

/// What this plugin is.
const IMPLEMENTS: [&str; 2] = ["NetworkDriver", "IpamDriver"];

type Shared = State<Arc<Driver>>;

/// All that Docker may call.
pub(super) fn router(driver: Arc<Driver>, ipam: Arc<Ipam>) -> Router {
    Router::new()
        .route("/Plugin.Activate", post(activate))
        .route("/NetworkDriver.GetCapabilities", post(capabilities))
        .route("/NetworkDriver.CreateNetwork", post(create_network))
        .route("/NetworkDriver.DeleteNetwork", post(delete_network))
        .route("/NetworkDriver.CreateEndpoint", post(create_endpoint))
        .route("/NetworkDriver.DeleteEndpoint", post(delete_endpoint))
        .route("/NetworkDriver.EndpointOperInfo", post(nothing::<OperInfo>))
        .route("/NetworkDriver.Join", post(join))
        .route("/NetworkDriver.Leave", post(nothing::<Done>))
        .route("/NetworkDriver.DiscoverNew", post(nothing::<Done>))
        .route("/NetworkDriver.DiscoverDelete", post(nothing::<Done>))
        .with_state(driver)
        .merge(ipam::router(ipam))
        .fallback(unknown)
}

// Every body is read, wanted or not: a connection that closes on one is broken for its sender.

async fn activate(_body: Bytes) -> Json<Activated> {
    Json(Activated { implements: &IMPLEMENTS })
}

/// Nothing is to be done.
async fn nothing<A: Default + Serialize>(_body: Bytes) -> Json<A> {
    Json(A::default())
}

async fn capabilities(_body: Bytes) -> Json<Capabilities> {
    Json(Capabilities { scope: "local", connectivity_scope: "global" })
}

async fn create_network(State(driver): Shared, body: Bytes) -> Response {
    answer("CreateNetwork", body, async |call| driver.create_network(&call).await).await
}

async fn delete_network(State(driver): Shared, body: Bytes) -> Response {
    answer("DeleteNetwork", body, async |call| driver.delete_network(&call).await).await
}

async fn create_endpoint(State(driver): Shared, body: Bytes) -> Response {
    answer("CreateEndpoint", body, async |call| driver.create_endpoint(&call).await).await
}

async fn delete_endpoint(State(driver): Shared, body: Bytes) -> Response {
    answer("DeleteEndpoint", body, async |call| driver.delete_endpoint(&call).await).await
}

async fn join(State(driver): Shared, body: Bytes) -> Response {
    answer("Join", body, async |call| driver.join(&call).await).await
}

/// Docker goes without what is not there (`ProgramExternalConnectivity`).
async fn unknown(_body: Bytes) -> Response {
    let err = "no such method".to_owned();
    (StatusCode::NOT_FOUND, Json(Problem { err })).into_response()
}

async fn answer<Q, A>(
    method: &'static str,
    body: Bytes,
    call: impl AsyncFnOnce(Q) -> Result<A, Error>,
) -> Response
where
    Q: DeserializeOwned,
    A: Serialize,
{
    let result = match serde_json::from_slice(&body) {
        Ok(question) => call(question).await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            let err = error.chain();
            tracing::warn!("{method}: {err}");
            Json(Problem { err }).into_response()
        }
    }
}
