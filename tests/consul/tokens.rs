//! ACL tokens by the agent's API.

use std::future::Future;

use serde_json::json;

use super::api::Api;

/// What lets a client read services and where they are.
pub const READ_SERVICES: &str =
    r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What requests carry.
    pub secret: String,
    /// Its name for those who manage tokens.
    accessor: String,
}

impl Api {
    /// Makes a policy of this name with these rules, and a token that has it. Takes the management token.
    #[track_caller]
    pub fn create_token(&self, policy: &str, rules: &str) -> impl Future<Output = Token> + use<> {
        let made = json!({"Name": policy, "Rules": rules});
        let made = self.done("PUT", "/v1/acl/policy", Some(&made));
        let token = json!({"Policies": [{"Name": policy}]});
        let token = self.done("PUT", "/v1/acl/token", Some(&token));
        async {
            made.await;
            let token = token.await.json();
            let text = |field: &str| token[field].as_str().unwrap().to_owned();
            Token {
                secret: text("SecretID"),
                accessor: text("AccessorID"),
            }
        }
    }

    /// Makes a token unknown.
    #[track_caller]
    pub fn delete_token(&self, token: &Token) -> impl Future<Output = ()> + use<> {
        let path = format!("/v1/acl/token/{}", token.accessor);
        let answer = self.done("DELETE", &path, None);
        async {
            answer.await;
        }
    }
}
