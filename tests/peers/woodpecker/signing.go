package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/yaronf/httpsign"
)

const (
	signatureLabel = "woodpecker-ci-extensions"
	userAgent      = "Woodpecker/3.17.0 (server-extensions)"
	patience       = 10 * time.Second
)

// clients sign and send. Woodpecker has only the first: with its two components httpsign cannot sign a request whose
// body is nil, since that gets no Content-Digest. The second signs what is left then, the target alone.
type clients struct {
	whole, targetOnly *httpsign.Client
}

func newClients(key ed25519.PrivateKey) (clients, error) {
	// Connections are kept between requests, and certificates checked, as Woodpecker does. Its list of allowed hosts
	// is left out: it decides whether a request is sent, not what is in it.
	client := http.Client{Timeout: patience, Transport: wire{&http.Transport{}}}
	whole, err := newClient(client, key, "@request-target", "content-digest")
	if err != nil {
		return clients{}, err
	}
	targetOnly, err := newClient(client, key, "@request-target")
	return clients{whole, targetOnly}, err
}

func newClient(client http.Client, key ed25519.PrivateKey, components ...string) (*httpsign.Client, error) {
	signer, err := httpsign.NewEd25519Signer(key, httpsign.NewSignConfig(), httpsign.Headers(components...))
	if err != nil {
		return nil, err
	}
	return httpsign.NewClient(client, httpsign.NewClientConfig().SetSignatureName(signatureLabel).SetSigner(signer)), nil
}

func readKey(file string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the key file is no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key is not an ed25519 one")
	}
	return key, nil
}

func publicPEM(key ed25519.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}
