package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

var bucket = []byte("sessions")

// A store keeps entries in a file, over restarts.
type store struct{ db *bolt.DB }

func openStore(file string) (*store, error) {
	db, err := bolt.Open(file, 0o600, &bolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", file, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	return &store{db}, err
}

// put returns the name of the new entry, which nobody can guess. Like the real one's it may
// end in "=".
func (s *store) put(e entry) (string, error) {
	var random [32]byte
	rand.Read(random[:])
	id := base64.URLEncoding.EncodeToString(random[:])
	data, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	return id, s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put([]byte(id), data) })
}

// get returns an entry that has not expired.
func (s *store) get(id string) (entry, bool) {
	var e entry
	err := s.db.View(func(tx *bolt.Tx) error { return json.Unmarshal(tx.Bucket(bucket).Get([]byte(id)), &e) })
	return e, err == nil && time.Now().Before(e.Expires)
}

func (s *store) delete(id string) error {
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Delete([]byte(id)) })
}
