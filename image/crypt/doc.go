// Package crypt encrypts and decrypts image layers in the form of ocicrypt,
// and wraps their keys in the packets of the field's key providers.
//
// A layer is AES-256-CTR under a key of its own, authenticated by an
// HMAC-SHA-256 over the ciphertext (guest-protocol 11.1). The key travels in an
// annotation, once for every [Recipient]: wrapped by a key that the broker keeps
// (11.3), or for a key pair as JWE, PKCS#7 or ocicrypt's PKCS#11 packet. A
// [KeyUnwrapper] opens it.
//
// The cipher releases plaintext before the HMAC has been seen, because a layer
// does not fit into memory. Whoever reads a [Decrypter] must therefore treat
// what it gives as hostile until the reader ends in io.EOF, and must read to
// that end.
package crypt
