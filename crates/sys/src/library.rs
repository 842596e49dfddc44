//! Shared libraries, loaded at run time (dlopen(3)): what a static program cannot do, and a small helper need not be linked with.
//!
//! What must stay true: a library is never unloaded, so its functions can be called for as long as the program runs.

use std::ffi::{CStr, c_void};

/// A library that is loaded.
pub struct Library {
    name: &'static CStr,
    handle: *mut c_void,
}

impl Library {
    /// Loads a library by its file name. The constructors of those that are loaded here do nothing but set up the library.
    pub fn load(name: &'static CStr) -> Result<Library, String> {
        // SAFETY: the name ends with a NUL.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return Err(format!("{} cannot be loaded", name.to_string_lossy()));
        }
        Ok(Library { name, handle })
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` must be the type of a pointer to this function, as the library's documentation has it.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: the handle is that of a loaded library, the name ends with a NUL.
        let found = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if found.is_null() {
            return Err(format!("{} has no {}", self.name.to_string_lossy(), name.to_string_lossy()));
        }
        // SAFETY: of one size, and a pointer to a function of this type, as the caller says.
        Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&found) })
    }
}
