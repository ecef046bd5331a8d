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

// A form with data-sign asks a passkey for its signature over data-digest, which the page shows, and sends the answer with itself.
async function signed(form) {
  const options = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(form.dataset.options));
  if (!same(new Uint8Array(options.challenge), bytesOf(form.dataset.digest))) throw new Error("the page asks for another digest than it shows");
  const shown = form.dataset.shows ? document.getElementById(form.dataset.shows) : null;
  if (form.dataset.shows && shown?.dataset.digest !== form.dataset.digest) throw new Error("the page shows another digest than it asks for");
  const answer = await navigator.credentials.get({ publicKey: options });
  return JSON.stringify(answer.toJSON());
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !form.dataset.sign || form.dataset.done) return;
  event.preventDefault();
  const button = event.submitter;
  tell(form, "");
  if (button) button.disabled = true;
  try {
    form.elements.answer.value = await signed(form);
    form.dataset.done = "yes";
    if (button) button.disabled = false;
    form.requestSubmit(button);
  } catch (error) {
    if (button) button.disabled = false;
    tell(form, error.name === "NotAllowedError" ? "No passkey answered, or you said no. Nothing was sent." : `Nothing was sent: ${error.message}`);
  }
});
