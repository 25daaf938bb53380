//! What hooks answer.

use fastsock::{Admission, Answer, Refusal, UplinkAction};
use pyo3::{
    exceptions::{PyBaseException, PyTypeError},
    intern,
    prelude::*,
    types::PyString,
};

use crate::{
    argument::client_id,
    error::class,
    hooks::{Hook, check_has_run},
    objects::{Accept, DropAction, Later, Replace, Reply},
    question::Question,
};

impl Question {
    /// Reads the result of a hook. `None`: it answers later.
    ///
    /// # Errors
    /// What the hook raised, or a `TypeError` for a result that is no answer.
    pub(crate) fn read(self, result: PyResult<Bound<'_, PyAny>>) -> PyResult<Option<Answer>> {
        match self {
            Self::Authenticate => admission(result),
            Self::OnUplink => action(&result?),
        }
    }
}

fn action(result: &Bound<'_, PyAny>) -> PyResult<Option<Answer>> {
    let action = if result.is_none() {
        UplinkAction::Forward
    } else if is::<DropAction>(result) {
        UplinkAction::Drop
    } else if let Ok(replace) = result.cast::<Replace>() {
        UplinkAction::Replace(replace.get().0.clone())
    } else if let Ok(reply) = result.cast::<Reply>() {
        UplinkAction::Reply(reply.get().0.clone())
    } else if is::<Later>(result) {
        return Ok(None);
    } else {
        return Err(no_answer(
            Hook::Uplink,
            "None, Drop, Replace, Reply or Later",
            result,
        ));
    };
    Ok(Some(Answer::Uplink(action)))
}

fn admission(result: PyResult<Bound<'_, PyAny>>) -> PyResult<Option<Answer>> {
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            return Python::attach(|py| match refusal(error.value(py))? {
                Some(refusal) => Ok(Some(Answer::Admission(Admission::Reject(refusal)))),
                None => Err(error),
            });
        }
    };
    let admission = if result.is_none() {
        Admission::AsConfigured
    } else if let Ok(id) = result.cast::<PyString>() {
        Admission::Accept(client_id(id.to_cow()?.as_ref())?)
    } else if let Ok(accept) = result.cast::<Accept>() {
        accept.get().0.clone().into()
    } else if is::<Later>(&result) {
        return Ok(None);
    } else if let Some(refusal) = refusal(&result)? {
        Admission::Reject(refusal)
    } else {
        let wanted = "a client id, Accept, None, Reject or Later";
        return Err(no_answer(Hook::Authenticate, wanted, &result));
    };
    Ok(Some(Answer::Admission(admission)))
}

/// The refusal in a `Reject`.
fn refusal(object: &Bound<'_, PyAny>) -> PyResult<Option<Refusal>> {
    let py = object.py();
    if !object.is_instance_of::<PyBaseException>()
        || !object.is_instance(class(py, "Reject")?.as_any())?
    {
        return Ok(None);
    }
    let status = object.getattr(intern!(py, "status"))?.extract()?;
    let reason: String = object.getattr(intern!(py, "reason"))?.extract()?;
    let retry_after: Option<u32> = object.getattr(intern!(py, "retry_after"))?.extract()?;
    let refusal = Refusal::new(status, reason);
    Ok(Some(match retry_after {
        Some(seconds) => refusal.with_retry_after(seconds),
        None => refusal,
    }))
}

/// Whether it is an instance of a class, or the class itself.
fn is<T: pyo3::PyTypeInfo>(object: &Bound<'_, PyAny>) -> bool {
    object.is(object.py().get_type::<T>()) || object.is_instance_of::<T>()
}

fn no_answer(hook: Hook, wanted: &str, result: &Bound<'_, PyAny>) -> PyErr {
    if let Err(error) = check_has_run(hook, result) {
        return error;
    }
    let (hook, class) = (hook.name(), result.get_type());
    PyTypeError::new_err(format!("{hook} returns {wanted}, not {class}"))
}
