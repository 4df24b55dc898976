use std::time::Duration;

use proptest::prelude::*;

use super::super::environment::Environment;
use super::super::token::Token;
use super::super::{Consistency, Consul};
use super::is_target;
use crate::transport::dial::UnixOptions;

/// Its settings as text, to compare.
fn settings(consul: &Consul) -> String {
    format!("{consul:?}")
}

fn problem(text: &str) -> String {
    Consul::target(text).validate().unwrap_err().to_string()
}

#[test]
fn a_target_is_what_the_setters_make() {
    let cases = [
        ("consul:///payments", Consul::service("payments")),
        (
            "CONSUL://agent:85/a%2Db/",
            Consul::service("a-b").agent("agent:85"),
        ),
        (
            "consul://agent/payments",
            Consul::service("payments").agent("agent:8500"),
        ),
        (
            "consul://[::1]/payments",
            Consul::service("payments").agent("[::1]:8500"),
        ),
        (
            "consul://[::1]:9/payments",
            Consul::service("payments").agent("[::1]:9"),
        ),
        (
            "consul://127.0.0.1:8500/payments?tag=v2&tag=blue&dc=dc1&dc=dc2&passing=true&near=_agent&stale=true\
             &filter=Service.Meta.x%20%3D%3D%20%22a%26b%22&ns=team&wait=5m&address=wan",
            Consul::service("payments")
                .agent("127.0.0.1:8500")
                .tag("v2")
                .tag("blue")
                .datacenter("dc1")
                .datacenter("dc2")
                .passing_only(true)
                .near("_agent")
                .consistency(Consistency::Stale)
                .filter(r#"Service.Meta.x == "a&b""#)
                .namespace("team")
                .wait(Duration::from_secs(300))
                .tagged_address("wan"),
        ),
        (
            "consul:///p?agent=unix:/run/consul.sock&token_file=/run/t&cache=/var/c&consistent",
            Consul::service("p")
                .agent("unix:/run/consul.sock")
                .token_file("/run/t")
                .cache("/var/c")
                .consistency(Consistency::Consistent),
        ),
    ];
    for (text, same) in cases {
        assert!(is_target(text));
        assert_eq!(settings(&Consul::target(text)), settings(&same), "{text}");
        Consul::target(text).validate().unwrap();
    }
    let with_token = Consul::target("consul://s%65cret@127.0.0.1:8500/payments");
    assert!(matches!(&with_token.token, Token::Value(token) if token.expose() == "secret"));
}

#[test]
fn mistakes_are_named() {
    let cases = [
        ("consul://agent:8500", "it names no service"),
        ("consul://agent:8500/", "consul.service: it is empty"),
        ("consul:///a/b", "a name has no slash"),
        ("consul:///p#x", "it has a fragment"),
        ("consul://user:pw@agent/p", "a colon before the @"),
        ("consul:///p?passing=maybe", "passing must be true or false"),
        ("consul:///p?passing&passing", "passing is given twice"),
        ("consul:///p?stale&consistent", "exclude each other"),
        (
            "consul:///p?colour=red",
            r#"the parameter "colour" is unknown"#,
        ),
        (
            "consul:///p?token=secret",
            "a token does not belong among the parameters",
        ),
        ("consul:///p?tag", "tag has no value"),
        ("consul:///p?tag=", "consul.tag: it is empty"),
        ("consul:///p?filter=", "consul.filter: it is empty"),
        ("consul:///p?wait=5", "wait must be a number with a unit"),
        ("consul:///p?wait=m", "wait must be a number with a unit"),
        (
            "consul:///p?wait=1h",
            "consul.wait: must be from 1 s to 10 minutes",
        ),
        ("consul:///p?dc=a&dc=a", "consul.datacenter: "),
        ("consul:///p?dc=../x", "consul.datacenter: "),
        ("consul:///..", "consul.service: "),
        ("consul:///%20", "consul.service: "),
        ("consul://sec/ret@agent/p", "there is an @ in the service"),
        ("consul://secr/et@agent", "there is an @ in the service"),
        ("consul:///p?0000-secret-4000", "a parameter is unknown"),
        (
            "consul:///p?token_file=",
            "consul.token_file: the path is empty",
        ),
        ("consul:///p?cache=", "consul.cache: the path is empty"),
        ("consul:///p?filter=%ff", "filter is no UTF-8"),
        ("consul://agent/p?agent=unix:/x", "the agent is given twice"),
        ("consul:///p?tls=maybe", "tls must be true or false"),
        ("consul:///p?agent=ftp://x", "consul.agent: "),
        ("consul://host:99999/p", "consul.agent: "),
        (
            "consul://secret@10.0.0.1/p",
            "consul.token: it (or CONSUL_HTTP_TOKEN) would go in plaintext",
        ),
        (
            "consul://a%0Ab@127.0.0.1/p",
            "consul.token: the token has a space, a line break",
        ),
    ];
    for (text, expected) in cases {
        let problem = problem(text);
        assert!(problem.contains(expected), "{text}: {problem}");
        assert!(!problem.contains("secret"), "{problem}");
    }
    assert!(!is_target("consul:payments") && !is_target("consulé") && !is_target(""));
}

#[test]
fn the_environment_fills_what_is_open() {
    let environment = Environment::made_of(&[
        ("CONSUL_HTTP_ADDR", "unix:///run/consul.sock"),
        ("CONSUL_HTTP_TOKEN", "secret"),
        ("CONSUL_NAMESPACE", "team"),
    ]);
    let open = Consul::service("p").resolved(&environment);
    let agent = open.agent.clone().unwrap().unwrap();
    assert_eq!(agent.to_string(), "unix:/run/consul.sock");
    assert!(matches!(&open.token, Token::Value(token) if token.expose() == "secret"));
    assert_eq!(open.query.namespace.as_deref(), Some("team"));
    let set = Consul::service("p")
        .agent("a:1")
        .token("own")
        .namespace("mine");
    assert_eq!(
        settings(&set.clone().resolved(&environment)),
        settings(&set)
    );

    let file = Environment::made_of(&[
        ("CONSUL_HTTP_TOKEN", "other"),
        ("CONSUL_HTTP_TOKEN_FILE", "/run/t"),
    ]);
    assert_eq!(
        Consul::service("p").resolved(&file).token,
        Token::File("/run/t".into())
    );
}

#[test]
fn owners_that_nobody_is_are_refused_by_name() {
    let nobody = Consul::service("p").unix_options(UnixOptions::new().owner(u32::MAX));
    let problem = nobody.validate().unwrap_err().to_string();
    assert!(problem.contains("consul.unix.owner: "), "{problem}");
}

/// What comes of the options for TLS.
#[cfg(feature = "__tls")]
mod tls {
    use super::*;
    use crate::transport::tls::Tls;

    const ON: (&str, &str) = ("CONSUL_HTTP_SSL", "true");
    const CA: (&str, &str) = ("CONSUL_CACERT", "/ca.pem");

    fn resolved(consul: Consul, variables: &[(&str, &str)]) -> Result<Option<Tls>, String> {
        let resolved = consul.resolved(&Environment::made_of(variables));
        match resolved.invalid {
            Some((field, problem)) => Err(format!("{field}: {problem}")),
            None => Ok(resolved.tls),
        }
    }

    fn service() -> Consul {
        Consul::service("p").agent("127.0.0.1:1")
    }

    #[test]
    fn the_environment_says_whether_and_how() {
        for on in ["1", "t", "T", "true", "TRUE", "True"] {
            let found = resolved(service(), &[("CONSUL_HTTP_SSL", on)]);
            assert_eq!(found, Ok(Some(Tls::new())), "{on}");
        }
        for off in ["", "0", "f", "F", "false", "FALSE", "False"] {
            // What it would be done with does not matter then.
            let variables = [
                ("CONSUL_HTTP_SSL", off),
                CA,
                ("CONSUL_HTTP_SSL_VERIFY", "false"),
                ("CONSUL_CAPATH", "/etc"),
                ("CONSUL_CLIENT_KEY", "/k"),
            ];
            assert_eq!(resolved(service(), &variables), Ok(None), "{off}");
        }
        let all = [
            CA,
            ("CONSUL_CAPATH", "/etc"),
            ("CONSUL_CLIENT_CERT", "/own.pem"),
            ("CONSUL_CLIENT_KEY", "/own.key"),
            ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
            ("CONSUL_HTTP_SSL_VERIFY", "true"),
        ];
        let wanted = Tls::new()
            .ca_file("/ca.pem")
            .identity_files("/own.pem", "/own.key")
            .server_name("server.dc1.consul");
        let over = |target: &str| resolved(Consul::target(target), &all);
        assert_eq!(over("consul:///p"), Ok(None));
        assert_eq!(over("consul:///p?tls"), Ok(Some(wanted.clone())));
        let https = "consul:///p?agent=https://127.0.0.1:1";
        assert_eq!(over(https), Ok(Some(wanted.clone())));
        let with = |more: &[_]| [&all[..], more].concat();
        assert_eq!(resolved(service(), &with(&[ON])), Ok(Some(wanted.clone())));
        let address = with(&[("CONSUL_HTTP_ADDR", "https://127.0.0.1:1")]);
        assert_eq!(resolved(Consul::service("p"), &address), Ok(Some(wanted)));
    }

    #[test]
    fn what_is_set_goes_first() {
        let own = || Tls::new().server_name("own");
        let rest = [
            ON,
            CA,
            ("CONSUL_TLS_SERVER_NAME", "other"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ];
        for consul in [
            service().tls(own()),
            service().tls(own()).agent("https://127.0.0.1:1"),
            Consul::target("consul:///p?tls=false").tls(own()),
        ] {
            assert_eq!(resolved(consul, &rest), Ok(Some(own())));
        }
        let off = Consul::target("consul:///p?tls=false");
        assert_eq!(resolved(off, &rest), Ok(None));
        // As in Consul's own client, `http` takes nothing back.
        let http = service().agent("http://127.0.0.1:1");
        assert_eq!(resolved(http, &[ON]), Ok(Some(Tls::new())));
        for both in [
            "consul:///p?agent=https://127.0.0.1:1&tls=false",
            "consul:///p?tls=false&agent=https://127.0.0.1:1",
        ] {
            let problem = problem(both);
            assert!(problem.contains("leave one of them out"), "{problem}");
        }
    }

    #[test]
    fn an_agents_socket_has_no_name_of_its_own() {
        let tls = || Tls::new().ca_pem(include_bytes!("../../../transport/tls/p521.pem"));
        let agent = |tls| Consul::service("p").agent("unix:/run/consul.sock").tls(tls);
        let problem = agent(tls()).validate().unwrap_err().to_string();
        assert!(problem.contains("set tls.server_name"), "{problem}");
        assert!(agent(tls().server_name("localhost")).validate().is_ok());
    }

    #[test]
    fn nothing_in_the_environment_turns_verification_off() {
        let cases = [
            (
                &[ON, ("CONSUL_HTTP_SSL_VERIFY", "false")][..],
                "CONSUL_HTTP_SSL_VERIFY=false would take anybody",
            ),
            (
                &[ON, CA, ("CONSUL_HTTP_SSL_VERIFY", "0")],
                "CONSUL_HTTP_SSL_VERIFY=false would take anybody",
            ),
            (
                &[ON, ("CONSUL_HTTP_SSL_VERIFY", "no")],
                "CONSUL_HTTP_SSL_VERIFY must be true or false",
            ),
            (
                &[("CONSUL_HTTP_SSL", "yes")],
                "CONSUL_HTTP_SSL must be true or false",
            ),
            (
                &[ON, ("CONSUL_CAPATH", "/etc/consul")],
                "CONSUL_CAPATH is not supported",
            ),
            (
                &[ON, ("CONSUL_CLIENT_CERT", "/own.pem")],
                "set both, or none",
            ),
            (
                &[ON, ("CONSUL_CLIENT_KEY", "/own.key")],
                "set both, or none",
            ),
        ];
        for (variables, expected) in cases {
            let problem = resolved(service(), variables).unwrap_err();
            assert!(problem.starts_with("consul.tls: "), "{problem}");
            assert!(problem.contains(expected), "{problem}");
            let consul = service().resolved(&Environment::made_of(variables));
            assert!(consul.validate().unwrap_err().is_config());
        }
    }
}

/// Where there is no TLS, nothing is asked in plaintext in place of it. `.ci/run` runs this: tests have all features otherwise.
#[cfg(not(feature = "__tls"))]
#[test]
fn without_the_feature_tls_is_refused() {
    let problem = |consul: Consul, variables: &[_]| {
        let consul = consul.resolved(&Environment::made_of(variables));
        consul.validate().err().map(|it| it.to_string())
    };
    let service = || Consul::service("p").agent("127.0.0.1:1");
    let on = ("CONSUL_HTTP_SSL", "true");
    let refused = problem(service(), &[on]).unwrap();
    assert!(
        refused.contains("consul.tls: CONSUL_HTTP_SSL needs the feature tls"),
        "{refused}"
    );
    let https = "https://127.0.0.1:1";
    for consul in [
        service().agent(https),
        Consul::target("consul:///p?tls"),
        Consul::target("consul:///p?agent=https://127.0.0.1:1"),
    ] {
        assert!(problem(consul.clone(), &[]).is_some(), "{consul:?}");
    }
    assert!(problem(Consul::service("p"), &[("CONSUL_HTTP_ADDR", https)]).is_some());
    for off in [&[][..], &[("CONSUL_HTTP_SSL", "false")]] {
        assert_eq!(problem(service(), off), None);
    }
    assert_eq!(
        problem(Consul::target("consul:///p?tls=false"), &[on]),
        None
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(consul://)?[ -~é]{0,60}") {
        let consul = Consul::target(&text);
        let _ = consul.validate();
    }

    #[test]
    fn no_token_is_shown(secret in "[a-zA-Z0-9]{5,20}QQQQQ", rest in "[ -~]{0,30}") {
        prop_assume!(!rest.contains("QQQQQ"));
        let consul = Consul::target(format!("consul://{secret}@10.0.0.1{rest}"));
        let told = format!("{consul:?} {:?}", consul.validate());
        prop_assert!(!told.contains("QQQQQ"), "{}", told);
    }
}
