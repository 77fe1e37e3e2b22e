// Package ship prepares images for confidential guests: it encrypts layers,
// signs manifests and shows what an image carries. It runs where the image is
// built, without a daemon, and is the writing side of the formats that the
// pull package reads.
package ship
