//! libnetwork's remote address driver in HTTP (`ipams/remote/api`): every method is a POST with a JSON
//! body of any content type. Every body is read, wanted or not: a connection that closes on one is broken for
//! its sender.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{Error, Ipam, PoolRequest, Wanted};

/// The option that says what an address is for (`ipamapi.RequestAddressType`).
const ADDRESS_TYPE: &str = "RequestAddressType";
/// Its value for a gateway (`netlabel.Gateway`).
const GATEWAY: &str = "com.docker.network.gateway";
/// Begins the options that Docker sets by itself (`netlabel.Prefix`).
const DOCKERS_OWN: &str = "com.docker.network.";

/// An object that may be missing or `null`, as Go has it.
type Options = Option<HashMap<String, String>>;
type Answer = Result<Json<Value>, Failure>;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RequestPool {
    pool: String,
    sub_pool: String,
    options: Options,
    v6: bool,
}

#[derive(Deserialize)]
struct ReleasePool {
    #[serde(rename = "PoolID")]
    pool: String,
}

#[derive(Deserialize)]
struct RequestAddress {
    #[serde(rename = "PoolID")]
    pool: String,
    #[serde(rename = "Address", default)]
    address: String,
    #[serde(rename = "Options", default)]
    options: Options,
}

#[derive(Deserialize)]
struct ReleaseAddress {
    #[serde(rename = "PoolID")]
    pool: String,
    #[serde(rename = "Address")]
    address: IpAddr,
}

/// The methods of `IpamDriver`.
pub fn router(ipam: Arc<Ipam>) -> Router {
    Router::new()
        .route("/IpamDriver.GetCapabilities", post(capabilities))
        .route("/IpamDriver.GetDefaultAddressSpaces", post(address_spaces))
        .route("/IpamDriver.RequestPool", post(request_pool))
        .route("/IpamDriver.ReleasePool", post(release_pool))
        .route("/IpamDriver.RequestAddress", post(request_address))
        .route("/IpamDriver.ReleaseAddress", post(release_address))
        .with_state(ipam)
}

/// Nothing needs to be asked for again after a restart of Docker: it is all on disk. A MAC would be a
/// random one for each run of a container.
async fn capabilities(_body: Bytes) -> Json<Value> {
    Json(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
}

async fn address_spaces(_body: Bytes) -> Json<Value> {
    Json(json!({
        "LocalDefaultAddressSpace": "ovs-ebpf-local",
        "GlobalDefaultAddressSpace": "ovs-ebpf-global",
    }))
}

async fn request_pool(State(ipam): State<Arc<Ipam>>, body: Bytes) -> Answer {
    let asked: RequestPool = parse(&body)?;
    let subnet = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(Error::Request),
    };
    let mut request = PoolRequest {
        subnet: subnet(&asked.pool)?,
        range: subnet(&asked.sub_pool)?,
        share: None,
        v6: asked.v6,
    };
    for (name, value) in asked.options.unwrap_or_default() {
        match &*name {
            "share" => request.share = Some(value.parse().map_err(Error::Request)?),
            name if name.starts_with(DOCKERS_OWN) => {}
            _ => return Err(Error::Option(format!("{name}={value}")).into()),
        }
    }
    let pool = ipam.request_pool(&request).await?;
    tracing::info!("pool {} of {}: this host gives out {}", pool.id, pool.subnet, pool.range);
    Ok(Json(json!({ "PoolID": pool.id, "Pool": pool.subnet, "Data": {} })))
}

async fn release_pool(State(ipam): State<Arc<Ipam>>, body: Bytes) -> Answer {
    let asked: ReleasePool = parse(&body)?;
    beside(move || ipam.release_pool(&asked.pool)).await?;
    Ok(Json(json!({})))
}

async fn request_address(State(ipam): State<Arc<Ipam>>, body: Bytes) -> Answer {
    let asked: RequestAddress = parse(&body)?;
    let kind = asked.options.as_ref().and_then(|options| options.get(ADDRESS_TYPE));
    let wanted = match (&*asked.address, kind.map(String::as_str)) {
        ("", Some(GATEWAY)) => Wanted::Gateway,
        ("", _) => Wanted::Any,
        (address, _) => {
            let problem = |_| Error::Request(format!("\"{address}\" is no IP address"));
            Wanted::This(address.parse().map_err(problem)?)
        }
    };
    let request = move || ipam.request_address(&asked.pool, wanted);
    let (address, subnet) = beside(request).await?;
    Ok(Json(json!({ "Address": format!("{address}/{}", subnet.length()), "Data": {} })))
}

async fn release_address(State(ipam): State<Arc<Ipam>>, body: Bytes) -> Answer {
    let asked: ReleaseAddress = parse(&body)?;
    beside(move || ipam.release_address(&asked.pool, asked.address)).await?;
    Ok(Json(json!({})))
}

/// Waits for the disk on a thread beside, so that nobody else has to.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::Request(format!("this is no request of Docker's: {error}")))
}

/// An answer that is not a success.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    /// Docker takes a failure from the body, if the status is 200.
    fn into_response(self) -> Response {
        tracing::warn!("addresses: {}", self.0);
        Json(json!({ "Error": self.0.to_string() })).into_response()
    }
}
