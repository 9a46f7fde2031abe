//! git's protocol for credential helpers (gitcredentials(7), git-credential(1)), and its prompts
//! (GIT_ASKPASS of git(1)).
#![forbid(unsafe_code)]

use std::io::Read;

use zeroize::Zeroizing;

use super::broker::ObtainedToken;
use super::secret::{LONGEST, Secret, WipedBytes};
use crate::error::{Error, Result, os_errno};

/// The user that GitHub wants beside an installation token.
pub const USERNAME: &str = "x-access-token";
const HOSTS: [&str; 2] = ["github.com", "gist.github.com"];
/// Longest description that is read, in bytes.
const LIMIT: usize = 64 << 10;

/// The description of a credential, as far as it matters here.
#[derive(Debug, Default)]
pub struct CredentialRequest {
    protocol: Option<String>,
    host: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    authtype: bool,
}

impl CredentialRequest {
    /// Reads `key=value` lines up to an empty one or the end; what is not known is passed over.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is longer than 64 KiB.
    pub fn read(input: impl Read) -> Result<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
        input
            .take(LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::failed("read a credential's description", os_errno(&error)))?;
        if bytes.len() > LIMIT {
            return Err(Error::plain(
                "read a credential's description",
                "it is longer than 64 KiB",
            ));
        }
        let mut request = Self::default();
        for line in bytes.split(|&byte| byte == b'\n').take_while(|line| !line.is_empty()) {
            let Some(equals) = line.iter().position(|&byte| byte == b'=') else { continue };
            let value = &line[equals + 1..];
            let text = || Some(String::from_utf8_lossy(value).into_owned());
            match &line[..equals] {
                b"protocol" => request.protocol = text(),
                b"host" => request.host = text(),
                b"username" => request.username = text(),
                b"password" => request.password = Secret::new(Zeroizing::new(value.to_vec())),
                // An empty value takes back what came before.
                b"capability[]" => {
                    request.authtype =
                        value == b"authtype" || request.authtype && !value.is_empty();
                }
                _ => {}
            }
        }
        Ok(request)
    }

    /// Whether it is GitHub's, by https, and for no user but the one of tokens. A description that names
    /// none of the three, as from somebody at a terminal, is.
    pub fn is_github(&self) -> bool {
        self.protocol.as_ref().is_none_or(|protocol| protocol == "https")
            && self.host.as_ref().is_none_or(|host| is_github(host))
            && self.username.as_ref().is_none_or(|name| name.is_empty() || name == USERNAME)
    }

    /// The password that came with it.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The answer to `get`.
    pub fn answer(&self, obtained: &ObtainedToken) -> WipedBytes {
        let (start, end) = match self.authtype {
            true => ("capability[]=authtype\n", "ephemeral=1\n"),
            false => ("", ""),
        };
        let start = format!("{start}username={USERNAME}\npassword=");
        let end = format!("\npassword_expiry_utc={}\n{end}", obtained.expiry);
        let mut bytes = Zeroizing::new(Vec::with_capacity(start.len() + LONGEST + end.len()));
        bytes.extend_from_slice(start.as_bytes());
        bytes.extend_from_slice(obtained.token.expose());
        bytes.extend_from_slice(end.as_bytes());
        bytes
    }
}

/// The answer to `capability`.
pub const CAPABILITIES: &str = "version 0\ncapability authtype";

/// A question of git's to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskpassPrompt {
    /// `Username for 'https://github.com': `
    Username,
    /// `Password for 'https://x-access-token@github.com': `
    Password,
    /// One about another server, or about something else.
    Foreign,
}

impl AskpassPrompt {
    /// `None` if `text` is no prompt but a word, such as the name of an operation.
    pub fn parse(text: &str) -> Option<Self> {
        let (what, address) = match text.split_once(" for '") {
            Some(parts) => parts,
            None if text.contains(|c: char| !c.is_ascii_lowercase()) => return Some(Self::Foreign),
            None => return None,
        };
        let address =
            address.split_once('\'').and_then(|(address, _)| address.strip_prefix("https://"));
        let authority = address.and_then(|address| address.split('/').next()).unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Some(match what {
            _ if !is_github(host) => Self::Foreign,
            "Username" if user.is_none() => Self::Username,
            "Password" if user.is_none_or(|user| user == USERNAME) => Self::Password,
            _ => Self::Foreign,
        })
    }
}

fn is_github(host: &str) -> bool {
    let host = host.strip_suffix(":443").unwrap_or(host);
    HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(text: &str) -> CredentialRequest {
        CredentialRequest::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_github_by_https_and_for_its_user_is_answered() {
        for ours in [
            "",
            "\n",
            "protocol=https\nhost=github.com\n",
            "host=GitHub.com\n",
            "host=github.com:443\n",
            "protocol=https\nhost=gist.github.com\npath=a/b\nwwwauth[]=Basic realm=x\n\nhost=x\n",
            "username=x-access-token\n",
            "host=x\nhost=github.com\n",
            "nonsense\nhost=github.com",
        ] {
            assert!(request(ours).is_github(), "{ours:?}");
        }
        for foreign in [
            "protocol=http\nhost=github.com\n",
            "host=github.com.example\n",
            "host=github.com\r\n",
            "host=api.github.com\n",
            "host=\n",
            "username=me\nhost=github.com\n",
            "protocol=HTTPS\n",
            "host=github.com:8443\n",
            "host=github.com@example.com\n",
        ] {
            assert!(!request(foreign).is_github(), "{foreign:?}");
        }
    }

    #[test]
    fn the_capability_is_answered_where_it_was_announced() {
        let token = Secret::new(Zeroizing::new(b"ghs_x".to_vec())).unwrap();
        let obtained = ObtainedToken { token, expiry: 17, warnings: Vec::new() };
        let answer =
            |text: &str| String::from_utf8(request(text).answer(&obtained).to_vec()).unwrap();
        let plain = "username=x-access-token\npassword=ghs_x\npassword_expiry_utc=17\n";
        assert_eq!(answer("capability[]=state\n"), plain);
        assert_eq!(answer("capability[]=authtype\ncapability[]=\n"), plain);
        let both = format!("capability[]=authtype\n{plain}ephemeral=1\n");
        assert_eq!(answer("capability[]=authtype\ncapability[]=state\n"), both);
    }

    #[test]
    fn prompts_of_other_servers_are_foreign() {
        use AskpassPrompt::{Foreign, Password, Username};
        for (text, prompt) in [
            ("Username for 'https://github.com': ", Some(Username)),
            ("Username for 'https://github.com/a/b.git': ", Some(Username)),
            ("Password for 'https://x-access-token@github.com': ", Some(Password)),
            ("Password for 'https://github.com': ", Some(Password)),
            ("Password for 'https://me@github.com': ", Some(Foreign)),
            ("Password for 'http://x-access-token@github.com': ", Some(Foreign)),
            ("Password for 'https://github.com@evil.example': ", Some(Foreign)),
            ("Password for 'https://evil.example/https://github.com': ", Some(Foreign)),
            ("Username for 'https://evil.example/': ", Some(Foreign)),
            ("Enter passphrase for key '/root/.ssh/id': ", Some(Foreign)),
            ("Are you sure?", Some(Foreign)),
            ("get", None),
            ("frobnicate", None),
        ] {
            assert_eq!(AskpassPrompt::parse(text), prompt, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CredentialRequest::read(&bytes[..]);
            let _ = AskpassPrompt::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
