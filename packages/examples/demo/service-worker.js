/**
 * Keeps the page's files, so that it can be opened without a server. The build puts `version` and `files` before this.
 * The server's files come first, when there is one: a new build shows at once.
 */
/* global files, version */
const cacheName = `topgun-demo-${version}`

const keep = async () => {
  const cache = await caches.open(cacheName)
  await cache.addAll(files)
  await self.skipWaiting()
}

const replaceOlder = async () => {
  const names = await caches.keys()
  const old = names.filter((name) => name.startsWith("topgun-demo-") && name !== cacheName)
  await Promise.all(old.map((name) => caches.delete(name)))
  await self.clients.claim()
}

const answer = async (request) => {
  try {
    return await fetch(request)
  } catch (fault) {
    const cache = await caches.open(cacheName)
    const kept = await cache.match(request, { ignoreSearch: true })
    if (kept === undefined) throw fault
    return kept
  }
}

self.addEventListener("install", (event) => event.waitUntil(keep()))
self.addEventListener("activate", (event) => event.waitUntil(replaceOlder()))
self.addEventListener("fetch", (event) => {
  const { request } = event
  if (request.method !== "GET" || new URL(request.url).origin !== self.location.origin) return
  event.respondWith(answer(request))
})
