// What is wrong with a page for those who cannot see it well, as a list of sentences.
(() => {
  const faults = []
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
  }
  const color = text => text.match(/[\d.]+/g).map(Number)
  const background = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = color(getComputedStyle(e).backgroundColor)
      if (c.length < 4 || c[3] > 0) return c
    }
    return [255, 255, 255]
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement
    if (!text || !element.getClientRects().length) continue
    const [a, b] = [color(getComputedStyle(element).color), background(element)].map(luminance)
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (contrast < 4.5) faults.push(`the contrast of "${text}" is ${contrast.toFixed(1)}`)
  }
  let level = 0
  for (const heading of document.querySelectorAll("h1,h2,h3,h4,h5,h6")) {
    const next = Number(heading.tagName[1])
    if (next > level + 1) faults.push(`${heading.tagName} "${heading.innerText}" follows a heading of level ${level}`)
    level = next
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("there is not one h1")
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id)
  for (const id of ids) if (ids.filter(other => other === id).length > 1) faults.push(`the id ${id} is there twice`)
  for (const link of document.querySelectorAll('[href^="#"]'))
    if (!document.getElementById(decodeURIComponent(link.getAttribute("href").slice(1)))) faults.push(`${link.getAttribute("href")} leads nowhere`)
  for (const e of document.querySelectorAll("[aria-labelledby]"))
    if (!document.getElementById(e.getAttribute("aria-labelledby"))) faults.push(`the label of ${e.tagName} is missing`)
  for (const th of document.querySelectorAll("th")) if (!th.scope) faults.push(`the heading "${th.innerText}" has no scope`)
  if (!document.documentElement.lang) faults.push("the language is missing")
  for (const e of document.body.querySelectorAll("*")) {
    const right = e.getBoundingClientRect().right
    if (right > innerWidth + 1 && !e.closest("svg,thead,pre,.skip")) faults.push(`${e.tagName} "${(e.innerText || "").slice(0, 40)}" ends at ${right} of ${innerWidth}`)
  }
  return faults
})()
