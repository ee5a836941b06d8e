//! The keys that sign and verify access tokens, and the tokens themselves: JWT (RFC 7519) signed with Ed25519 (RFC 8037).
//!
//! The algorithm is pinned: a token says which key signed it, never how. Times are checked against the `Clock` port, so
//! that tests own them.

use std::sync::Arc;

use acb_ports::metadata::SigningKeyRow;
use acb_types::{ErrorCode, Timestamp, limits};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::principal::{FamilyId, Principal, Roles};
use crate::error::AppError;

/// Who tokens are for.
pub const AUDIENCE: &str = "acb";
/// How far another node's clock may be ahead of ours, in seconds.
const SKEW_S: u64 = 5;
/// Longest token that is looked at, in bytes: ours have about 600.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// What an access token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    agent_id: String,
    tenant_id: String,
    roles: Vec<String>,
    credential: String,
    family: String,
}

/// What a good token says.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who it speaks for.
    pub principal: Principal,
    /// When it ends.
    pub expires_at: Timestamp,
}

struct Key {
    id: String,
    decoding: DecodingKey,
    public: String,
}

struct Keys {
    signing: Option<(String, EncodingKey)>,
    /// Newest first; few, so a list beats a map.
    verifying: Vec<Key>,
}

/// The keys of this server.
pub struct Keyring {
    issuer: String,
    validation: Validation,
    keys: RwLock<Arc<Keys>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A ring of the keys that the store has, newest first.
    ///
    /// # Errors
    /// `data_damaged` when a stored key is none.
    pub fn new(issuer: String, rows: &[SigningKeyRow]) -> Result<Self, AppError> {
        // Other crates of the process may bring another provider along; whoever was first stays, and both do Ed25519.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // The library asks the machine for the time; we ask the clock, in `verify`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let ring =
            Self { issuer, validation, keys: RwLock::new(Arc::new(Keys { signing: None, verifying: Vec::new() })) };
        ring.replace(rows)?;
        Ok(ring)
    }

    /// Takes over the keys that the store has, newest first.
    ///
    /// # Errors
    /// `data_damaged` when a stored key is none.
    pub fn replace(&self, rows: &[SigningKeyRow]) -> Result<(), AppError> {
        let mut keys = Keys { signing: None, verifying: Vec::with_capacity(rows.len()) };
        for row in rows {
            let damaged = || {
                AppError::of(ErrorCode::DataDamaged).private(format!("signing key {} is no Ed25519 key", row.key_id))
            };
            let pair = Ed25519KeyPair::from_pkcs8(&row.private.0).map_err(|_| damaged())?;
            let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
            let decoding = DecodingKey::from_ed_components(&public).map_err(|e| damaged().caused_by(e))?;
            if keys.signing.is_none() && !row.retired_at.is_set() {
                keys.signing = Some((row.key_id.clone(), EncodingKey::from_ed_der(&row.private.0)));
            }
            keys.verifying.push(Key { id: row.key_id.clone(), decoding, public });
        }
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    /// Whether there is a key to sign with.
    pub fn can_sign(&self) -> bool {
        self.keys.read().signing.is_some()
    }

    /// Signs an access token that ends at a time. Tokens count in whole seconds, so the end is rounded down.
    ///
    /// # Errors
    /// `internal` without a signing key.
    pub fn sign(
        &self,
        principal: &Principal,
        now: Timestamp,
        expires_at: Timestamp,
        token_id: String,
    ) -> Result<String, AppError> {
        let keys = Arc::clone(&self.keys.read());
        let Some((key_id, key)) = &keys.signing else { return Err(AppError::internal("there is no signing key")) };
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: principal.agent.to_string(),
            iat: now.0 / 1000,
            nbf: now.0 / 1000,
            exp: expires_at.0 / 1000,
            jti: token_id,
            agent_id: principal.agent.to_string(),
            tenant_id: principal.tenant.to_string(),
            roles: principal.roles.names(),
            credential: principal.credential.to_string(),
            family: principal.family.to_string(),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key_id.clone());
        jsonwebtoken::encode(&header, &claims, key)
            .map_err(|e| AppError::internal("access token not signed").caused_by(e))
    }

    /// Checks a token: form, algorithm, key, signature, issuer, audience and times. About 60 µs.
    ///
    /// # Errors
    /// `token_expired`, or `token_invalid` for everything else.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, AppError> {
        let bad = || AppError::of(ErrorCode::TokenInvalid);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(bad().private("longer than any token of ours"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| bad().caused_by(e))?;
        if header.alg != Algorithm::EdDSA {
            return Err(bad().private("another algorithm than EdDSA"));
        }
        let keys = Arc::clone(&self.keys.read());
        let key = keys.verifying.iter().find(|k| header.kid.as_deref() == Some(&k.id));
        let key = key.ok_or_else(|| bad().private("unknown signing key"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation)
            .map_err(|e| bad().caused_by(e))?
            .claims;
        if now.0 >= claims.exp.saturating_mul(1000) {
            return Err(AppError::of(ErrorCode::TokenExpired));
        }
        if claims.nbf.saturating_sub(SKEW_S).saturating_mul(1000) > now.0 {
            return Err(bad().private("not good yet: clocks of nodes differ, or the clock was set back"));
        }
        let unsound = |e: AppError| bad().private("claims of our own that do not parse").caused_by(e);
        Ok(Verified {
            principal: Principal {
                tenant: claims.tenant_id.parse().map_err(|e| unsound(AppError::from(e)))?,
                agent: claims.agent_id.parse().map_err(|e| unsound(AppError::from(e)))?,
                roles: Roles::parse(&claims.roles).map_err(unsound)?,
                credential: claims.credential.parse().map_err(|e| unsound(AppError::from(e)))?,
                family: FamilyId::from(claims.family.as_str()),
            },
            expires_at: Timestamp(claims.exp.saturating_mul(1000)),
        })
    }

    /// The public keys as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub fn jwks(&self) -> String {
        let keys = Arc::clone(&self.keys.read());
        let keys: Vec<_> = keys
            .verifying
            .iter()
            .map(|k| {
                serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": k.id, "x": k.public,
                })
            })
            .collect();
        serde_json::json!({ "keys": keys }).to_string()
    }
}

/// Makes a signing key.
///
/// # Errors
/// `internal` when the machine has no randomness.
pub fn new_signing_key(key_id: String, now: Timestamp) -> Result<SigningKeyRow, AppError> {
    let pair = Ed25519KeyPair::generate().map_err(|e| AppError::internal("no Ed25519 key made").caused_by(e))?;
    let document = pair.to_pkcs8().map_err(|e| AppError::internal("no Ed25519 key made").caused_by(e))?;
    Ok(SigningKeyRow {
        key_id,
        private: acb_ports::metadata::SecretBytes(document.as_ref().to_vec()),
        created_at: now,
        retired_at: Timestamp::NONE,
    })
}

/// Retired keys verify no token any more after this.
pub fn forget_before(now: Timestamp) -> Timestamp {
    let longest = limits::find("access_token_ttl").map_or(86_400_000, |l| l.maximum);
    Timestamp(now.0.saturating_sub(longest + SKEW_S * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        Principal {
            tenant: "default".parse().unwrap(),
            agent: "planner".parse().unwrap(),
            roles: Roles::ALL,
            credential: "key:1".parse().unwrap(),
            family: FamilyId::from("f1"),
        }
    }

    const NOW: Timestamp = Timestamp(1_767_225_600_000);

    fn ring(issuer: &str) -> (Keyring, SigningKeyRow) {
        let row = new_signing_key("k1".to_owned(), NOW).unwrap();
        (Keyring::new(issuer.to_owned(), std::slice::from_ref(&row)).unwrap(), row)
    }

    #[test]
    fn a_token_reads_back_what_it_was_signed_for() {
        let (ring, _) = ring("acb:a");
        let end = Timestamp(NOW.0 + 3_600_000);
        let token = ring.sign(&principal(), NOW, end, "t1".to_owned()).unwrap();
        let verified = ring.verify(&token, NOW).unwrap();
        assert_eq!(verified.principal, principal());
        assert_eq!(verified.expires_at, end);
        assert!(token.len() < 1000, "{}", token.len());
    }

    #[test]
    fn a_token_ends_on_the_second_and_does_not_begin_early() {
        let (ring, _) = ring("acb:a");
        let end = Timestamp(NOW.0 + 60_000);
        let token = ring.sign(&principal(), NOW, end, "t1".to_owned()).unwrap();
        assert!(ring.verify(&token, Timestamp(end.0 - 1)).is_ok());
        assert_eq!(ring.verify(&token, end).unwrap_err().code(), ErrorCode::TokenExpired);
        assert!(ring.verify(&token, Timestamp(NOW.0 - 5_000)).is_ok(), "a small skew is borne");
        assert_eq!(ring.verify(&token, Timestamp(NOW.0 - 6_000)).unwrap_err().code(), ErrorCode::TokenInvalid);
    }

    #[test]
    fn tokens_of_other_servers_keys_and_algorithms_are_refused() {
        let (ours, row) = ring("acb:a");
        let end = Timestamp(NOW.0 + 60_000);
        let code = |token: &str| ours.verify(token, NOW).unwrap_err().code();
        // Another server's key under the same id.
        let (other, _) = ring("acb:a");
        assert_eq!(code(&other.sign(&principal(), NOW, end, "t".to_owned()).unwrap()), ErrorCode::TokenInvalid);
        // Our key, another issuer.
        let elsewhere = Keyring::new("acb:b".to_owned(), std::slice::from_ref(&row)).unwrap();
        assert_eq!(code(&elsewhere.sign(&principal(), NOW, end, "t".to_owned()).unwrap()), ErrorCode::TokenInvalid);
        // The classic: HMAC with the public key as its secret.
        let jwks: serde_json::Value = serde_json::from_str(&ours.jwks()).unwrap();
        let public = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("k1".to_owned());
        let claims = serde_json::json!({"iss":"acb:a","aud":"acb","sub":"planner","iat":0,"nbf":0,"exp":end.0/1000,
            "jti":"t","agent_id":"planner","tenant_id":"default","roles":["admin"],"credential":"key:1","family":"f1"});
        let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(code(&forged), ErrorCode::TokenInvalid);
        // No algorithm at all.
        let b64 = |v: &str| URL_SAFE_NO_PAD.encode(v);
        let none = format!("{}.{}.", b64(r#"{"alg":"none","kid":"k1"}"#), b64(&claims.to_string()));
        assert_eq!(code(&none), ErrorCode::TokenInvalid);
        // Our own, with one claim changed.
        let good = ours.sign(&principal(), NOW, end, "t".to_owned()).unwrap();
        let mut parts: Vec<&str> = good.split('.').collect();
        let changed =
            String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap().replace("planner", "plannes");
        let changed = b64(&changed);
        parts[1] = &changed;
        assert_eq!(code(&parts.join(".")), ErrorCode::TokenInvalid);
        for junk in ["", ".", "..", "a.b.c", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(code(junk), ErrorCode::TokenInvalid, "{junk:.10}");
        }
    }

    #[test]
    fn an_old_keys_tokens_stay_good_after_a_rotation() {
        let (ring, mut old) = ring("acb:a");
        let end = Timestamp(NOW.0 + 60_000);
        let before = ring.sign(&principal(), NOW, end, "t".to_owned()).unwrap();
        let new = new_signing_key("k2".to_owned(), NOW).unwrap();
        old.retired_at = NOW;
        ring.replace(&[new, old]).unwrap();
        let after = ring.sign(&principal(), NOW, end, "t".to_owned()).unwrap();
        assert!(ring.verify(&before, NOW).is_ok());
        assert!(ring.verify(&after, NOW).is_ok());
        assert_eq!(jsonwebtoken::decode_header(&after).unwrap().kid.as_deref(), Some("k2"));
        assert!(ring.jwks().contains("k1") && ring.jwks().contains("k2"));
    }
}
