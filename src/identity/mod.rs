//! Who a node is: the certificate authority, join tokens, and mutual TLS.
