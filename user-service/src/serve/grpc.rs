//! `user.v1.UserService` over gRPC.

use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::lookup::{FALLBACK, Users};
use crate::proto::user_service_server::UserService;
use crate::proto::{GetUserRequest, GetUserResponse};

#[tonic::async_trait]
impl UserService for Users {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let found = self.find(request.into_inner().name).await?;
        let mut response = Response::new(GetUserResponse { msg: found.greeting() });
        if found.fallback {
            response.metadata_mut().insert(FALLBACK, MetadataValue::from_static("true"));
        }
        Ok(response)
    }
}
