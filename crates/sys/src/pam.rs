//! PAM (pam(3)), loaded at run time: only a dynamically linked program can load its modules.
//!
//! What must stay true: nobody is asked anything, so a module that needs an answer fails; every text that PAM allocates is
//! freed once. In a static program every call fails with a reason.

use std::ffi::{CStr, CString};
use std::os::fd::{FromRawFd, OwnedFd};

/// A PAM transaction with an open session.
pub struct PamSession {
    #[cfg(not(target_feature = "crt-static"))]
    transaction: dynamic::Transaction,
}

impl std::fmt::Debug for PamSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PamSession")
    }
}

impl PamSession {
    /// Opens a session of a service (a name below /etc/pam.d) for a user: account, credentials, session. `environment` are
    /// assignments that the modules see. The error names what failed.
    pub fn open(
        service: &CStr,
        user: &CStr,
        terminal: Option<&CStr>,
        environment: &[CString],
    ) -> Result<PamSession, String> {
        #[cfg(not(target_feature = "crt-static"))]
        return dynamic::Transaction::open(service, user, terminal, environment)
            .map(|transaction| PamSession { transaction });
        #[cfg(target_feature = "crt-static")]
        {
            let _ = (service, user, terminal, environment);
            Err("this program is linked statically and cannot load PAM".to_owned())
        }
    }

    /// The assignments that the modules leave for the session.
    pub fn environment(&self) -> Vec<String> {
        #[cfg(not(target_feature = "crt-static"))]
        return self.transaction.environment();
        #[cfg(target_feature = "crt-static")]
        Vec::new()
    }

    /// Closes the session.
    pub fn close(self) {
        #[cfg(not(target_feature = "crt-static"))]
        self.transaction.close();
    }
}

#[cfg(not(target_feature = "crt-static"))]
mod dynamic {
    use crate::library::Library;
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::ptr;

    const SUCCESS: c_int = 0;
    /// `PAM_CONV_ERR`.
    const CONVERSATION_FAILED: c_int = 19;
    /// `PAM_BUF_ERR`.
    const NO_MEMORY: c_int = 5;
    const TTY: c_int = 3;
    const SILENT: c_int = 0x8000;
    const ESTABLISH: c_int = 2;
    const DELETE: c_int = 4;
    /// Styles up to this one want an answer; those above only show a text.
    const STYLE_ASKS_MAX: c_int = 2;
    /// At most this many variables are taken over.
    const VARIABLES_MAX: usize = 4096;

    /// `struct pam_message`.
    #[repr(C)]
    struct Message {
        style: c_int,
        text: *const c_char,
    }

    /// `struct pam_response`.
    #[repr(C)]
    struct Response {
        text: *mut c_char,
        unused: c_int,
    }

    type Talk = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

    /// `struct pam_conv`.
    #[repr(C)]
    struct Conversation {
        talk: Talk,
        data: *mut c_void,
    }

    /// Asked for something, nobody answers; told something, nobody minds.
    extern "C" fn talk(
        count: c_int,
        messages: *mut *const Message,
        responses: *mut *mut Response,
        _: *mut c_void,
    ) -> c_int {
        let Ok(count) = usize::try_from(count) else { return CONVERSATION_FAILED };
        for at in 0..count {
            // SAFETY: PAM gives an array of `count` pointers to messages (pam_conv(3)).
            let style = unsafe { (**messages.add(at)).style };
            if style <= STYLE_ASKS_MAX {
                return CONVERSATION_FAILED;
            }
        }
        // SAFETY: calloc has no preconditions; PAM frees what it is given here.
        let empty = unsafe { libc::calloc(count.max(1), size_of::<Response>()) };
        if empty.is_null() {
            return NO_MEMORY;
        }
        // SAFETY: PAM gives a place for one pointer.
        unsafe { *responses = empty.cast() };
        SUCCESS
    }

    type Handle = *mut c_void;

    /// The functions of libpam that are used.
    struct Functions {
        start: unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int,
        set_item: unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int,
        put_variable: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
        account: unsafe extern "C" fn(Handle, c_int) -> c_int,
        credentials: unsafe extern "C" fn(Handle, c_int) -> c_int,
        open_session: unsafe extern "C" fn(Handle, c_int) -> c_int,
        close_session: unsafe extern "C" fn(Handle, c_int) -> c_int,
        variables: unsafe extern "C" fn(Handle) -> *mut *mut c_char,
        explain: unsafe extern "C" fn(Handle, c_int) -> *const c_char,
        end: unsafe extern "C" fn(Handle, c_int) -> c_int,
    }

    impl Functions {
        fn load() -> Result<Functions, String> {
            let library = Library::load(c"libpam.so.0")?;
            // SAFETY: each function is of this type by the documentation of PAM (pam(3)).
            unsafe {
                Ok(Functions {
                    start: library.function(c"pam_start")?,
                    set_item: library.function(c"pam_set_item")?,
                    put_variable: library.function(c"pam_putenv")?,
                    account: library.function(c"pam_acct_mgmt")?,
                    credentials: library.function(c"pam_setcred")?,
                    open_session: library.function(c"pam_open_session")?,
                    close_session: library.function(c"pam_close_session")?,
                    variables: library.function(c"pam_getenvlist")?,
                    explain: library.function(c"pam_strerror")?,
                    end: library.function(c"pam_end")?,
                })
            }
        }
    }

    pub(super) struct Transaction {
        library: Functions,
        handle: Handle,
        // PAM keeps a pointer to it.
        _conversation: Box<Conversation>,
    }

    impl Transaction {
        pub(super) fn open(
            service: &CStr,
            user: &CStr,
            terminal: Option<&CStr>,
            environment: &[CString],
        ) -> Result<Transaction, String> {
            let library = Functions::load()?;
            let conversation = Box::new(Conversation { talk, data: ptr::null_mut() });
            let mut handle = ptr::null_mut();
            // SAFETY: texts end with a NUL, the conversation lives as long as the transaction, `handle` is a place for one.
            let status = unsafe {
                (library.start)(service.as_ptr(), user.as_ptr(), &raw const *conversation, &raw mut handle)
            };
            if status != SUCCESS {
                return Err(format!("pam_start: error {status}"));
            }
            let transaction = Transaction { library, handle, _conversation: conversation };
            transaction.begin(terminal, environment)?;
            Ok(transaction)
        }

        fn begin(&self, terminal: Option<&CStr>, environment: &[CString]) -> Result<(), String> {
            let (library, handle) = (&self.library, self.handle);
            if let Some(terminal) = terminal {
                // SAFETY: the item is a text that PAM copies.
                self.check("PAM_TTY", unsafe { (library.set_item)(handle, TTY, terminal.as_ptr().cast()) })?;
            }
            for assignment in environment {
                // SAFETY: a text that PAM copies.
                self.check("pam_putenv", unsafe { (library.put_variable)(handle, assignment.as_ptr()) })?;
            }
            // SAFETY: here and below, the handle is that of this transaction.
            self.check("pam_acct_mgmt", unsafe { (library.account)(handle, SILENT) })?;
            self.check("pam_setcred", unsafe { (library.credentials)(handle, ESTABLISH | SILENT) })?;
            // SAFETY: as above.
            let opened = self.check("pam_open_session", unsafe { (library.open_session)(handle, SILENT) });
            if opened.is_err() {
                // SAFETY: as above.
                unsafe { (library.credentials)(handle, DELETE | SILENT) };
            }
            opened
        }

        fn check(&self, what: &str, status: c_int) -> Result<(), String> {
            if status == SUCCESS {
                return Ok(());
            }
            // SAFETY: the text is PAM's own and is copied at once.
            let text = unsafe { CStr::from_ptr((self.library.explain)(self.handle, status)) };
            Err(format!("{what}: {}", text.to_string_lossy()))
        }

        pub(super) fn environment(&self) -> Vec<String> {
            // SAFETY: the list is allocated for us and ends with a null pointer (pam_getenvlist(3)); each text and the list
            // itself are freed once.
            unsafe {
                let list = (self.library.variables)(self.handle);
                let mut found = Vec::new();
                if list.is_null() {
                    return found;
                }
                for at in 0..VARIABLES_MAX {
                    let text = *list.add(at);
                    if text.is_null() {
                        break;
                    }
                    found.push(CStr::from_ptr(text).to_string_lossy().into_owned());
                    libc::free(text.cast());
                }
                libc::free(list.cast());
                found
            }
        }

        pub(super) fn close(self) {
            // SAFETY: the handle is that of this transaction.
            unsafe {
                (self.library.close_session)(self.handle, SILENT);
                (self.library.credentials)(self.handle, DELETE | SILENT);
            }
        }
    }

    impl Drop for Transaction {
        fn drop(&mut self) {
            // SAFETY: the handle is that of this transaction and is not used again.
            unsafe { (self.library.end)(self.handle, SUCCESS) };
        }
    }
}

/// Forks a process of one thread: the child does the work and ends.
pub fn in_child(work: impl FnOnce()) -> std::io::Result<u32> {
    // SAFETY: the callers (the executor, the helper that runs generators) have one thread, so that the child may use all of the library.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            work();
            // SAFETY: ends the child without what exit handlers of the parent would do.
            unsafe { libc::_exit(0) }
        }
        child => Ok(u32::try_from(child).unwrap_or_default()),
    }
}

/// Forks a process of one thread into a namespace of processes of its own, as a child of this one's parent. The new process gets
/// nothing; this one gets the other's number and pidfd, and starts no further process: it would be in that namespace.
pub fn begin_processes() -> std::io::Result<Option<(u32, OwnedFd)>> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain numbers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_NEWPID | libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: the arguments are valid; as in `in_child`, one thread and a copy of all memory.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<libc::clone_args>()) } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel installed this descriptor for us by CLONE_PIDFD.
        child => Ok(Some((u32::try_from(child).unwrap_or_default(), unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}
