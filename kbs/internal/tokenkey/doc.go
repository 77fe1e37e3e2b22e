// Package tokenkey is a key pair in a PKCS#11 token, for kbsctl: one that opens or
// one that signs, named by a URI (RFC 7512), and asked through the program kbs-pkcs11, because a token's
// library is C code and kbsctl has none (ADR 49). The private key never leaves
// the token; what it opens crosses two pipes.
package tokenkey
