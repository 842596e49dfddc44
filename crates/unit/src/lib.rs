//! The unit-file language: lexer, names, specifiers, value types, the directive table, loading.
