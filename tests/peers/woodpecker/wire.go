package main

import (
	"context"
	"net/http"
)

// Sent is one request as it left, under httpsign's client, and the status that came back (0 if none did).
type Sent struct {
	Method         string `json:"method"`
	Target         string `json:"target"`
	SignatureInput string `json:"signature_input"`
	Signature      string `json:"signature"`
	Bytes          int64  `json:"bytes"`
	Status         int    `json:"status"`
}

// wire is the transport that notes every request, so that retries are counted where they happen.
type wire struct {
	transport http.RoundTripper
}

type noteKey struct{}

// noted makes every request under the context go into the list. One list is for one operation: an operation's
// requests come one after another.
func noted(ctx context.Context, list *[]Sent) context.Context {
	return context.WithValue(ctx, noteKey{}, list)
}

// RoundTrip names Woodpecker as the user agent, as Woodpecker's own transport does, and sends.
func (w wire) RoundTrip(request *http.Request) (*http.Response, error) {
	leaving := request.Clone(request.Context())
	leaving.Header.Set("User-Agent", userAgent)
	note := Sent{
		Method:         leaving.Method,
		Target:         leaving.URL.RequestURI(),
		SignatureInput: leaving.Header.Get("Signature-Input"),
		Signature:      leaving.Header.Get("Signature"),
		Bytes:          leaving.ContentLength,
	}
	response, err := w.transport.RoundTrip(leaving)
	if err == nil {
		note.Status = response.StatusCode
	}
	if list, ok := request.Context().Value(noteKey{}).(*[]Sent); ok {
		*list = append(*list, note)
	}
	return response, err
}
