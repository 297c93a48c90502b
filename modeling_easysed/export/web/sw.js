// Keeps all files of the page, so that it works without a network. A new export has a new version and replaces all.
const VERSION = "@@VERSION@@";
const FILES = "@@FILES@@";
const PREFIX = `easysed ${registration.scope} `; // several exports may lie on one host
const NAME = PREFIX + VERSION;

addEventListener("install", (event) => {
  const requests = FILES.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(requests)));
  skipWaiting();
});

addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      const old = names.filter((name) => name.startsWith(PREFIX) && name !== NAME);
      await Promise.all(old.map((name) => caches.delete(name)));
      await clients.claim();
    })(),
  );
});

addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || !url.href.startsWith(registration.scope)) return;
  const name = url.pathname.slice(new URL(registration.scope).pathname.length) || "index.html";
  event.respondWith(
    (async () => {
      const cache = await caches.open(NAME);
      return (await cache.match(name)) ?? fetch(event.request);
    })(),
  );
});
