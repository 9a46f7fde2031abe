//! The address of the platform: `http://HOST[:PORT][/PATH]` or the same with https.
#![forbid(unsafe_code)]

use crate::error::{Error, Result, escape};

/// Where a server is. No part holds anything that could end a line of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// https.
    pub secure: bool,
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// 80 or 443 if the text names none.
    pub port: u16,
    /// What stands before every path: empty, or begins with a slash and ends with none.
    pub prefix: String,
    /// The text without slashes at its end.
    pub text: String,
}

impl ServerUrl {
    /// # Errors
    ///
    /// For text of another form. A user name in it is refused, for nothing here would use its password.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |reason: &'static str| {
            let shown = text.chars().take(200).collect::<String>();
            Error::plain(format!("use {} as the platform's URL", escape(&shown)), reason)
                .hint("set PLATFORM_URL to http://HOST[:PORT] or https://HOST[:PORT]")
        };
        let text = text.trim_end_matches('/');
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("it has a character that no URL has"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("it is none"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(refuse("its scheme is neither http nor https")),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') || text.contains(['?', '#', '\\']) {
            return Err(refuse("only host, port and path can be used"));
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                address
                    .parse::<std::net::Ipv6Addr>()
                    .map_err(|_| refuse("what is in brackets is no IPv6 address"))?;
                (address, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(refuse("its host is no name and no address"));
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(refuse("its port is no number")),
            Some(number) => Some(number.parse().ok().filter(|&port| port > 0)),
        };
        let port = match port {
            None if secure => 443,
            None => 80,
            Some(port) => port.ok_or_else(|| refuse("its port is no number"))?,
        };
        Ok(Self { secure, host: host.into(), port, prefix: prefix.into(), text: text.into() })
    }

    /// Value of the request's `Host`: the port only if it is not the scheme's own (RFC 9110, 7.2).
    pub fn host_header(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port == if self.secure { 443 } else { 80 } {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_and_their_defaults() {
        for (text, secure, host, port, prefix, header) in [
            (
                "http://host.docker.internal:8080",
                false,
                "host.docker.internal",
                8080,
                "",
                "host.docker.internal:8080",
            ),
            ("https://platform.example//", true, "platform.example", 443, "", "platform.example"),
            ("HTTP://10.0.0.1/a/b/", false, "10.0.0.1", 80, "/a/b", "10.0.0.1"),
            ("http://[::1]:9/x", false, "::1", 9, "/x", "[::1]:9"),
            ("https://[::1]", true, "::1", 443, "", "[::1]"),
        ] {
            let url = ServerUrl::parse(text).unwrap();
            assert_eq!(
                (url.secure, &*url.host, url.port, &*url.prefix),
                (secure, host, port, prefix)
            );
            assert_eq!(url.host_header(), header);
            assert_eq!(url.text, text.trim_end_matches('/'));
        }
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused() {
        for odd in [
            "",
            "/",
            "platform",
            "ftp://x",
            "http://",
            "http://:80",
            "http://x:",
            "http://x:0",
            "http://x:65536",
            "http://x:8o",
            "http://u:p@x",
            "http://x?q",
            "http://x#f",
            "http://x y",
            "http://x\r\nA: b",
            "http://\u{e9}",
            "http://[::1",
            "http://[x]",
            "http://[::1]x",
            "http://x\\@y",
            "http://a%2fb",
        ] {
            assert!(ServerUrl::parse(odd).is_err(), "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_gets_into_a_line_of_its_own(text in "\\PC{0,40}|https?://[\\x00-\\x7f]{0,40}") {
            if let Ok(url) = ServerUrl::parse(&text) {
                let parts = [url.host_header(), url.prefix, url.text].concat();
                prop_assert!(parts.bytes().all(|byte| byte.is_ascii_graphic()), "{parts:?}");
            }
        }
    }
}
