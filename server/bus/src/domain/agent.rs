//! What an agent may say of itself: the limits of its fields.

use std::{collections::BTreeMap, time::Duration};

use acb_ports::metadata::{AgentCapability, AgentFilter, AgentSpec};
use acb_types::{ErrorCode, limits};

use crate::error::AppError;

pub(super) fn short(field: &'static str, text: &str) -> Result<(), AppError> {
    at_most(field, text.len(), limits::SHORT_TEXT_BYTES_MAX)
}

pub(super) fn at_most(field: &'static str, actual: usize, limit: usize) -> Result<(), AppError> {
    if actual > limit { Err(AppError::too_large(field, actual, limit)) } else { Ok(()) }
}

/// Checks every field of a spec.
///
/// # Errors
/// `field_too_large` or `invalid_argument`, naming the first field that is wrong.
pub fn check_spec(spec: &AgentSpec) -> Result<(), AppError> {
    short("type", &spec.agent_type)?;
    short("name", &spec.name)?;
    at_most("description", spec.description.len(), limits::DESCRIPTION_BYTES_MAX)?;
    short("location", &spec.location)?;
    at_most("endpoint", spec.endpoint.len(), limits::ENDPOINT_BYTES_MAX)?;
    check_capabilities(&spec.capabilities)?;
    at_most("groups", spec.groups.len(), limits::GROUPS_MAX)?;
    for group in &spec.groups {
        if group.is_empty() {
            return Err(AppError::invalid("groups", "must not hold an empty name"));
        }
        short("groups", group)?;
    }
    check_metadata(&spec.metadata)
}

fn check_capabilities(capabilities: &[AgentCapability]) -> Result<(), AppError> {
    at_most("capabilities", capabilities.len(), limits::CAPABILITIES_MAX)?;
    for (at, capability) in capabilities.iter().enumerate() {
        at_most("capabilities.input_schema", capability.input_schema.len(), limits::SCHEMA_BYTES_MAX)?;
        at_most("capabilities.output_schema", capability.output_schema.len(), limits::SCHEMA_BYTES_MAX)?;
        for (field, schema) in [
            ("capabilities.input_schema", &capability.input_schema),
            ("capabilities.output_schema", &capability.output_schema),
        ] {
            if !schema.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(schema).is_err() {
                return Err(AppError::invalid(field, format!("of {} is not JSON", capability.name)));
            }
        }
        if capabilities[..at].iter().any(|c| c.name == capability.name) {
            return Err(AppError::invalid("capabilities", format!("holds {} twice", capability.name)));
        }
    }
    Ok(())
}

pub(super) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), AppError> {
    at_most("metadata", metadata.len(), limits::METADATA_MAX)?;
    let bytes: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    at_most("metadata", bytes, limits::METADATA_BYTES_MAX)?;
    match metadata.keys().find(|k| k.is_empty()) {
        Some(_) => Err(AppError::invalid("metadata", "must not have an empty name")),
        None => Ok(()),
    }
}

/// Whether an agent's word about its activity may hold so long.
///
/// # Errors
/// `invalid_argument` outside the limits.
pub fn check_activity(ttl: Option<Duration>) -> Result<(), AppError> {
    let range = limits::ACTIVITY_TTL_MIN..=limits::ACTIVITY_TTL_MAX;
    match ttl {
        Some(ttl) if !range.contains(&ttl) => {
            let message = format!("of {ttl:?} is outside {:?} to {:?}", range.start(), range.end());
            Err(AppError::invalid("activity_ttl_ms", message))
        }
        _ => Ok(()),
    }
}

/// Checks the conditions of a discovery.
///
/// # Errors
/// `field_too_large`, naming the first field that is wrong.
pub fn check_filter(filter: &AgentFilter) -> Result<(), AppError> {
    short("type", filter.agent_type.as_deref().unwrap_or_default())?;
    short("location", filter.location.as_deref().unwrap_or_default())?;
    at_most("capabilities_all", filter.capabilities_all.len(), limits::CAPABILITIES_MAX)?;
    at_most("capabilities_any", filter.capabilities_any.len(), limits::CAPABILITIES_MAX)?;
    short("text", filter.text.as_deref().unwrap_or_default())?;
    check_metadata(&filter.metadata)
}

/// Parses a semantic version; nothing for an empty text.
///
/// # Errors
/// `invalid_version`.
pub fn version(field: &'static str, text: &str) -> Result<Option<semver::Version>, AppError> {
    if text.is_empty() {
        return Ok(None);
    }
    short(field, text)?;
    semver::Version::parse(text).map(Some).map_err(|e| {
        AppError::new(ErrorCode::InvalidVersion, format!("{field} is no semantic version: {e}")).detail("field", field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut AgentSpec)) -> Result<(), ErrorCode> {
        let mut spec = AgentSpec::new("a".parse().unwrap());
        change(&mut spec);
        check_spec(&spec).map_err(|e| e.code())
    }

    #[test]
    fn each_field_is_bounded() {
        let x = |n: usize| "x".repeat(n);
        let capability = |name: &str| AgentCapability::named(name.parse().unwrap());
        assert_eq!(spec(|_| ()), Ok(()));
        assert_eq!(spec(|s| s.name = x(128)), Ok(()));
        let too_large = Err(ErrorCode::FieldTooLarge);
        assert_eq!(spec(|s| s.name = x(129)), too_large);
        assert_eq!(spec(|s| s.agent_type = x(129)), too_large);
        assert_eq!(spec(|s| s.location = x(129)), too_large);
        assert_eq!(spec(|s| s.description = x(1025)), too_large);
        assert_eq!(spec(|s| s.endpoint = x(513)), too_large);
        assert_eq!(spec(|s| s.groups = (0..65).map(|i| i.to_string()).collect()), too_large);
        assert_eq!(spec(|s| s.groups = [x(129)].into()), too_large);
        assert_eq!(spec(|s| s.capabilities = (0..65).map(|i| capability(&format!("c{i}"))).collect()), too_large);
        assert_eq!(spec(|s| s.metadata = (0..65).map(|i| (i.to_string(), x(1))).collect()), too_large);
        assert_eq!(spec(|s| s.metadata = [(x(1), x(16_384))].into()), too_large);
        let schema = |text: String| AgentCapability { input_schema: text, ..capability("c") };
        assert_eq!(spec(|s| s.capabilities = vec![schema(format!("\"{}\"", x(16_384)))]), too_large);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let capability = |name: &str| AgentCapability::named(name.parse().unwrap());
        let invalid = Err(ErrorCode::InvalidArgument);
        assert_eq!(spec(|s| s.groups = [String::new()].into()), invalid);
        assert_eq!(spec(|s| s.metadata = [(String::new(), "v".to_owned())].into()), invalid);
        assert_eq!(spec(|s| s.capabilities = vec![capability("c"), capability("c")]), invalid);
        let schema = AgentCapability { output_schema: "{".to_owned(), ..capability("c") };
        assert_eq!(spec(|s| s.capabilities = vec![schema]), invalid);
    }

    #[test]
    fn a_version_is_semantic_or_absent() {
        assert_eq!(version("version", "").unwrap(), None);
        assert_eq!(version("version", "1.2.3-rc.1").unwrap().unwrap().to_string(), "1.2.3-rc.1");
        for bad in ["v1.2.3", "1.2", "one"] {
            assert_eq!(version("version", bad).unwrap_err().code(), ErrorCode::InvalidVersion, "{bad}");
        }
    }
}
