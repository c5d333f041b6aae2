//! CompleteMultipartUpload that creates and never replaces. object_store has no mode for that; R2
//! and S3 take the header that they take for PUT.

use http::{HeaderValue, Method, header::IF_NONE_MATCH};
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
};
use tonic::async_trait;

/// Sends what object_store sends, with the condition where it is missing.
#[derive(Debug, Clone)]
pub(super) struct CreateOnly(pub(super) HttpClient);

#[async_trait]
impl HttpService for CreateOnly {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if completes_an_upload(&request) {
            // Not among the headers that are signed, as with object_store's own conditional PUT.
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        self.0.execute(request).await
    }
}

impl HttpConnector for CreateOnly {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn completes_an_upload(request: &HttpRequest) -> bool {
    request.method() == Method::POST
        && request.uri().query().is_some_and(|query| query.starts_with("uploadId="))
}
