// SPDX-License-Identifier: AGPL-3.0-or-later
// The console's one script. It copies, it asks passkeys, and it lets nothing become script.
"use strict";

// htmx parses what the server answers; that is the one place where text becomes a document. No element that runs or loads anything
// passes, whatever a page was made to contain; the server escapes every text, so that none of these is ever a name or a memo.
if (window.trustedTypes) {
  const FORBIDDEN = /<\/?(script|iframe|frame|object|embed|applet|base|link|meta|style)[\s>/]/i;
  window.trustedTypes.createPolicy("default", {
    createHTML(text) {
      if (FORBIDDEN.test(text)) throw new TypeError("an element that no part of a page has");
      return text;
    },
  });
}

const said = (text) => { const place = document.getElementById("said"); if (place) place.textContent = text; };

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (!button) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => said("Copied."), () => said("This browser does not let pages copy."));
});

// On a phone the menu begins closed; without this script it stays open.
if (window.matchMedia("(max-width: 860px)").matches) document.querySelectorAll("details.menu").forEach((menu) => menu.removeAttribute("open"));

const bytesOf = (hex) => Uint8Array.from(hex.replace(/^0x/, "").match(/../g) ?? [], (pair) => parseInt(pair, 16));
const same = (a, b) => a.length === b.length && a.every((byte, place) => byte === b[place]);

function tell(form, text) {
  const place = form.parentElement.querySelector("[role=alert]") ?? form.querySelector("[role=alert]");
  if (place) { place.textContent = text; place.hidden = !text; }
}

// What is asked for stands on the page, field by field: the message that is sent, its digest, and nothing that is not shown.
function compare(form, shown) {
  if (!shown || shown.dataset.digest !== form.dataset.digest || form.elements.digest.value !== form.dataset.digest) throw new Error("the page shows another digest than it asks for");
  const text = (place) => (place.querySelector("code") ?? place).textContent.trim();
  const message = JSON.parse(form.elements.message.value);
  const told = new Map([...shown.querySelectorAll("[data-field]")].map((place) => [place.dataset.field, text(place)]));
  const names = Object.keys(message);
  if (names.length !== told.size) throw new Error("the page shows other fields than it sends");
  const spelled = (value) => typeof value === "object" ? JSON.stringify(value) : String(value);
  for (const name of names) if (told.get(name) !== spelled(message[name])) throw new Error(`the page shows another ${name} than it sends`);
}

// A form with data-sign asks a passkey for its signature over data-digest, which the page shows, and sends the answer with itself.
async function signed(form) {
  const options = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(form.dataset.options));
  if (!same(new Uint8Array(options.challenge), bytesOf(form.dataset.digest))) throw new Error("the page asks for another digest than it shows");
  if (form.elements.message) compare(form, document.getElementById(form.dataset.shows));
  const answer = await navigator.credentials.get({ publicKey: options });
  return JSON.stringify(answer.toJSON());
}

// A form with data-create makes a passkey; the server verifies what the authenticator answers, whole.
async function created(form) {
  const options = PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(form.dataset.create));
  return JSON.stringify((await navigator.credentials.create({ publicKey: options })).toJSON());
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !(form.dataset.sign || form.dataset.create) || form.dataset.done) return;
  event.preventDefault();
  const button = event.submitter;
  tell(form, "");
  if (button) button.disabled = true;
  try {
    form.elements.answer.value = await (form.dataset.create ? created(form) : signed(form));
    form.dataset.done = "yes";
    if (button) button.disabled = false;
    form.requestSubmit(button);
  } catch (error) {
    if (button) button.disabled = false;
    tell(form, error.name === "NotAllowedError" ? "No passkey answered, or you said no. Nothing was sent." : `Nothing was sent: ${error.message}`);
  }
});
