//! Signatures (PKCS#7), checked by libcrypto, which is loaded at run time: only a dynamically linked program can.
//!
//! What must stay true: a signature is good only if one of the given certificates signed just this content; what cannot be
//! checked is not good. In a static program every check fails with a reason.

/// Whether a detached signature in DER is that of one of these certificates (PEM) for a content. The error says why nothing can
/// be checked.
pub fn is_signed(signature: &[u8], content: &[u8], certificates: &[Vec<u8>]) -> Result<bool, String> {
    #[cfg(not(target_feature = "crt-static"))]
    return dynamic::is_signed(signature, content, certificates);
    #[cfg(target_feature = "crt-static")]
    {
        let _ = (signature, content, certificates);
        Err("this program is linked statically and cannot load libcrypto".to_owned())
    }
}

#[cfg(not(target_feature = "crt-static"))]
mod dynamic {
    use crate::library::Library;
    use std::ffi::{c_int, c_void};
    use std::ptr;

    type Object = *mut c_void;

    // Of PKCS7_verify(3): certificates in the message do not count, nobody has to vouch for those given, and the content is no
    // text.
    const NOT_INTERNAL: c_int = 0x10;
    const NOT_VOUCHED_FOR: c_int = 0x20;
    const BINARY: c_int = 0x80;

    /// The functions of libcrypto that are used.
    struct Functions {
        buffer: unsafe extern "C" fn(*const c_void, c_int) -> Object,
        free_buffer: unsafe extern "C" fn(Object) -> c_int,
        read_signature: unsafe extern "C" fn(Object, *mut Object) -> Object,
        free_signature: unsafe extern "C" fn(Object),
        read_certificate: unsafe extern "C" fn(Object, *mut Object, *mut c_void, *mut c_void) -> Object,
        free_certificate: unsafe extern "C" fn(Object),
        stack: unsafe extern "C" fn() -> Object,
        push: unsafe extern "C" fn(Object, Object) -> c_int,
        free_stack: unsafe extern "C" fn(Object),
        verify: unsafe extern "C" fn(Object, Object, Object, Object, Object, c_int) -> c_int,
    }

    impl Functions {
        fn load() -> Result<Functions, String> {
            let library = Library::load(c"libcrypto.so.3")?;
            // SAFETY: each function is of this type by the documentation of OpenSSL 3 (BIO_s_mem(3), d2i_PKCS7_bio(3),
            // PEM_read_bio_X509(3), DEFINE_STACK_OF(3), PKCS7_verify(3)).
            unsafe {
                Ok(Functions {
                    buffer: library.function(c"BIO_new_mem_buf")?,
                    free_buffer: library.function(c"BIO_free")?,
                    read_signature: library.function(c"d2i_PKCS7_bio")?,
                    free_signature: library.function(c"PKCS7_free")?,
                    read_certificate: library.function(c"PEM_read_bio_X509")?,
                    free_certificate: library.function(c"X509_free")?,
                    stack: library.function(c"OPENSSL_sk_new_null")?,
                    push: library.function(c"OPENSSL_sk_push")?,
                    free_stack: library.function(c"OPENSSL_sk_free")?,
                    verify: library.function(c"PKCS7_verify")?,
                })
            }
        }
    }

    /// An object of the library, freed by what belongs to it.
    struct Owned<R> {
        object: Object,
        free: unsafe extern "C" fn(Object) -> R,
    }

    impl<R> Owned<R> {
        fn of(object: Object, free: unsafe extern "C" fn(Object) -> R) -> Option<Owned<R>> {
            (!object.is_null()).then_some(Owned { object, free })
        }
    }

    impl<R> Drop for Owned<R> {
        fn drop(&mut self) {
            // SAFETY: the object is one of the library's, and is freed here alone.
            unsafe { (self.free)(self.object) };
        }
    }

    /// Bytes as the library reads them; they live longer than it.
    fn reader<'a>(library: &Functions, bytes: &'a [u8]) -> Option<(Owned<c_int>, &'a [u8])> {
        let length = c_int::try_from(bytes.len()).ok()?;
        // SAFETY: the bytes are live for as long as the reader, which the caller keeps no longer than them.
        let object = unsafe { (library.buffer)(bytes.as_ptr().cast(), length) };
        Some((Owned::of(object, library.free_buffer)?, bytes))
    }

    pub(super) fn is_signed(
        signature: &[u8],
        content: &[u8],
        certificates: &[Vec<u8>],
    ) -> Result<bool, String> {
        let library = Functions::load()?;
        Ok(certificates
            .iter()
            .any(|certificate| check(&library, signature, content, certificate) == Some(true)))
    }

    /// Nothing where something cannot be read.
    fn check(library: &Functions, signature: &[u8], content: &[u8], certificate: &[u8]) -> Option<bool> {
        let (message, _) = reader(library, signature)?;
        let (pem, _) = reader(library, certificate)?;
        let (data, _) = reader(library, content)?;
        // SAFETY: readers of live bytes; what is not asked for is a null pointer, as the manual pages allow.
        let (message, certificate) = unsafe {
            (
                (library.read_signature)(message.object, ptr::null_mut()),
                (library.read_certificate)(pem.object, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()),
            )
        };
        let message = Owned::of(message, library.free_signature)?;
        let certificate = Owned::of(certificate, library.free_certificate)?;
        // SAFETY: a new list, which frees itself alone.
        let list = Owned::of(unsafe { (library.stack)() }, library.free_stack)?;
        // SAFETY: all objects are live and of the types that the functions take; no store of certificates is needed by these
        // flags, and no output is wanted.
        let verified = unsafe {
            if (library.push)(list.object, certificate.object) <= 0 {
                return None;
            }
            let flags = NOT_INTERNAL | NOT_VOUCHED_FOR | BINARY;
            (library.verify)(
                message.object,
                list.object,
                ptr::null_mut(),
                data.object,
                ptr::null_mut(),
                flags,
            )
        };
        Some(verified == 1)
    }
}
