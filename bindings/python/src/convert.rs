//! Values in and out. In: dictionaries with known names, made by the Python side; every complaint names the field. Out:
//! the values of `acb_sdk._types`.

use std::time::Duration;

use acb_sdk::{MessageId, Page, Timestamp};
use pyo3::{
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyFunction, PyList, PyModule},
};

use crate::{call, error::invalid};

/// An object of a class of `acb_sdk._types`, from its named fields.
pub(crate) fn make(
    py: Python<'_>,
    class: &str,
    fill: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>,
) -> PyResult<Py<PyAny>> {
    static TYPES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let types = TYPES.get_or_try_init(py, || py.import("acb_sdk._types").map(Bound::unbind))?;
    let fields = PyDict::new(py);
    fill(&fields)?;
    Ok(types.bind(py).getattr(class)?.call((), Some(&fields))?.unbind())
}

/// A point in time as `datetime` in UTC; `None` when it is not set.
pub(crate) fn time(py: Python<'_>, at: Timestamp) -> PyResult<Option<Py<PyAny>>> {
    static MAKE: PyOnceLock<Py<PyFunction>> = PyOnceLock::new();
    if !at.is_set() {
        return Ok(None);
    }
    Ok(Some(MAKE.import(py, "acb_sdk._types", "time_of")?.call1((at.0,))?.unbind()))
}

/// A list of objects.
pub(crate) fn list<T>(
    py: Python<'_>,
    items: impl IntoIterator<Item = T>,
    give: impl Fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    let out = PyList::empty(py);
    for item in items {
        out.append(give(py, item)?)?;
    }
    Ok(out.into_any().unbind())
}

/// A page: its items, and the token of the next.
pub(crate) fn page<T>(
    py: Python<'_>,
    page: Page<T>,
    give: impl Fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    let items = list(py, page.items, give)?;
    make(py, "Page", |f| {
        f.set_item("items", items)?;
        f.set_item("next_token", page.next)
    })
}

/// An id of a message as text.
pub(crate) fn message_id(py: Python<'_>, operation: &'static str, id: &str) -> PyResult<MessageId> {
    let wrong = |e| {
        let error = acb_sdk::Error::new(acb_sdk::ErrorCode::InvalidPosition, operation, format!("{id:?}: {e}"));
        crate::error::exception(py, &error.with("field", "id"))
    };
    id.parse().map_err(wrong)
}

/// Named options, as a dictionary that holds only what is given.
pub(crate) struct Options<'a, 'py> {
    py: Python<'py>,
    operation: &'static str,
    given: Option<&'a Bound<'py, PyDict>>,
}

impl<'a, 'py> Options<'a, 'py> {
    pub(crate) fn new(py: Python<'py>, operation: &'static str, given: Option<&'a Bound<'py, PyDict>>) -> Self {
        Self { py, operation, given }
    }

    fn find(&self, name: &'static str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(given) = self.given else { return Ok(None) };
        Ok(given.get_item(name)?.filter(|v| !v.is_none()))
    }

    fn wrong(&self, name: &'static str, wanted: &str, value: &Bound<'py, PyAny>) -> PyErr {
        let class = value.get_type().name().map_or_else(|_| "?".to_owned(), |n| n.to_string());
        invalid(self.py, self.operation, name, format!("{name} takes {wanted}, not {class}"))
    }

    /// A complaint about an option.
    pub(crate) fn refuse(&self, name: &'static str, text: String) -> PyErr {
        invalid(self.py, self.operation, name, text)
    }

    /// Whether something is so; not, when it is not given.
    pub(crate) fn flag(&self, name: &'static str) -> PyResult<bool> {
        let Some(value) = self.find(name)? else { return Ok(false) };
        value.extract().map_err(|_| self.wrong(name, "a bool", &value))
    }

    pub(crate) fn text(&self, name: &'static str) -> PyResult<Option<String>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        value.extract().map(Some).map_err(|_| self.wrong(name, "a str", &value))
    }

    pub(crate) fn number(&self, name: &'static str) -> PyResult<Option<u64>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        value.extract().map(Some).map_err(|_| self.wrong(name, "an int from 0 on", &value))
    }

    pub(crate) fn small(&self, name: &'static str) -> PyResult<Option<u32>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        value.extract().map(Some).map_err(|_| self.wrong(name, "an int of 32 bits from 0 on", &value))
    }

    pub(crate) fn span(&self, name: &'static str) -> PyResult<Option<Duration>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        let seconds: f64 = value.extract().map_err(|_| self.wrong(name, "seconds", &value))?;
        call::span(self.py, self.operation, name, seconds).map(Some)
    }

    pub(crate) fn spans(&self, name: &'static str) -> PyResult<Option<Vec<Duration>>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        let seconds: Vec<f64> = value.extract().map_err(|_| self.wrong(name, "a list of seconds", &value))?;
        seconds.into_iter().map(|s| call::span(self.py, self.operation, name, s)).collect::<PyResult<_>>().map(Some)
    }

    pub(crate) fn texts(&self, name: &'static str) -> PyResult<Option<Vec<String>>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        value.extract().map(Some).map_err(|_| self.wrong(name, "a list of str", &value))
    }

    pub(crate) fn pairs(&self, name: &'static str) -> PyResult<Option<Vec<(String, String)>>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        let map = value.cast::<PyDict>().map_err(|_| self.wrong(name, "a dict of str", &value))?;
        let mut out = Vec::with_capacity(map.len());
        for (key, value) in map.iter() {
            let key: String = key.extract().map_err(|_| self.wrong(name, "names that are str", &key))?;
            let value: String = value.extract().map_err(|_| self.wrong(name, "values that are str", &value))?;
            out.push((key, value));
        }
        Ok(Some(out))
    }

    /// Items that are dictionaries themselves.
    pub(crate) fn each(&self, name: &'static str) -> PyResult<Option<Vec<Bound<'py, PyDict>>>> {
        let Some(value) = self.find(name)? else { return Ok(None) };
        value.extract().map(Some).map_err(|_| self.wrong(name, "a list", &value))
    }

    /// One of a fixed set of words.
    pub(crate) fn word<T>(
        &self,
        name: &'static str,
        all: impl IntoIterator<Item = T>,
        name_of: impl Fn(&T) -> &'static str,
    ) -> PyResult<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let mut words = Vec::new();
        for item in all {
            if name_of(&item) == text {
                return Ok(Some(item));
            }
            words.push(name_of(&item));
        }
        let text = format!("{name} is one of {}, not {text:?}", words.join(", "));
        Err(invalid(self.py, self.operation, name, text))
    }
}
