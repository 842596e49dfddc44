Error: No such file or directory (os error 2)

Stack backtrace:
   0: anyhow::error::<impl core::convert::From<E> for anyhow::Error>::from
   1: system::fixture::read
   2: system::fixture::shown
   3: system::main
   4: std::sys::backtrace::__rust_begin_short_backtrace
   5: std::rt::lang_start::{{closure}}
   6: std::rt::lang_start_internal
   7: main
   8: __libc_start_call_main
   9: __libc_start_main_impl
  10: _start
error: test failed, to rerun pass `-p muster-tests --test system`

Caused by:
  process didn't exit successfully: `/work/wt/jobs/target/x86_64-unknown-linux-gnu/release/deps/system-193d33d4ca9540fc --jobs 1 --show p2.txt` (exit status: 1)
