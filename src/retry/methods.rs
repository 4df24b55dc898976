//! Which policy holds for which method.

use std::collections::HashMap;

use crate::error::Error;

/// The policies of a channel: one for all methods, and those of some services and methods.
#[derive(Debug)]
pub(crate) struct Policies<T> {
    default: T,
    /// By `service/method`, or by `service` alone.
    named: HashMap<String, T>,
}

impl<T> Policies<T> {
    pub(crate) fn new(default: T, named: HashMap<String, T>) -> Self {
        Self { default, named }
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.default).chain(self.named.values())
    }

    /// The policy for a request's path: its method's, else its service's, else the channel's (the order of
    /// gRPC's service config).
    pub(crate) fn of(&self, path: &str) -> &T {
        if self.named.is_empty() {
            return &self.default;
        }
        let method = path.strip_prefix('/').unwrap_or(path);
        let service = || method.split_once('/').map(|(service, _)| service);
        self.named
            .get(method)
            .or_else(|| self.named.get(service()?))
            .unwrap_or(&self.default)
    }
}

/// Checks a name for [`Policies`]. `field` is the setter's name.
///
/// # Errors
///
/// If it is neither `package.Service` nor `package.Service/Method`.
pub(crate) fn validate_method_name(field: &str, name: &str) -> Result<(), Error> {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    let valid = match name.split_once('/') {
        None => is_part(name),
        Some((service, method)) => is_part(service) && is_part(method),
    };
    if valid {
        return Ok(());
    }
    let problem = format!(
        "{name:?} must be a service, \"package.Service\", or a method, \"package.Service/Method\""
    );
    Err(Error::config(field, problem))
}

#[cfg(test)]
mod tests {
    use super::super::Retry;
    use super::*;

    #[test]
    fn the_method_goes_before_its_service_and_that_before_the_channel() {
        let [channel, service, method] = [1, 2, 3].map(|it| Retry::exponential().attempts(it));
        let named = HashMap::from([
            ("echo.Echo".to_owned(), service.clone()),
            ("echo.Echo/Unary".to_owned(), method.clone()),
        ]);
        let policies = Policies::new(channel.clone(), named);
        for (path, expected) in [
            ("/echo.Echo/Unary", &method),
            ("/echo.Echo/Stream", &service),
            ("/echo.Echo/Unary/", &service),
            ("/echo.Echo", &service),
            ("/echo.Echoes/Unary", &channel),
            ("/other.Echo/Unary", &channel),
            ("/", &channel),
            ("", &channel),
        ] {
            assert_eq!(policies.of(path), expected, "{path}");
        }
    }

    #[test]
    fn names_are_a_service_or_a_method_of_it() {
        for name in ["Echo", "echo.v1.Echo", "echo.v1.Echo/Unary"] {
            validate_method_name("retry_for", name).unwrap();
        }
        for name in [
            "",
            "/",
            "/echo.Echo/Unary",
            "echo.Echo/",
            "a/b/c",
            "a b",
            "é",
        ] {
            let error = validate_method_name("retry_for", name).unwrap_err();
            assert!(error.to_string().starts_with("retry_for: "), "{error}");
        }
    }
}
