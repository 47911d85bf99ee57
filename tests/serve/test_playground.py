"""The playground in a real browser: conversations, a stop, a reload, a wrong key, a server that goes away."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser import MARKS, chromium, set_width
from tests.serve.serving import Address, Parrot, serving
from tests.serve.test_limits import Gate

pytest.importorskip("selenium", reason="needs the extra browser")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = MARKS
FIELDS = "input, select, textarea, button"


class Page:
    """The page of one server, as a person uses it."""

    def __init__(self, driver: Any, address: Address):
        self.driver, self.address = driver, address
        driver.get(f"http://127.0.0.1:{address.port}/")
        driver.execute_script("localStorage.clear(); sessionStorage.clear()")
        self.reload()

    def reload(self) -> None:
        self.driver.refresh()
        self.wait(lambda: self.find("model-first").is_enabled() or self.dialog_is_open)

    def find(self, name: str) -> Any:
        return self.driver.find_element(By.ID, name)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    @property
    def dialog_is_open(self) -> bool:
        return bool(self.all("dialog[open]"))

    def wait(self, condition: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, 30, poll_frequency=0.02).until(lambda _: condition())

    def write(self, text: str) -> None:
        self.find("prompt").send_keys(text, Keys.ENTER)

    def write_lines(self, *lines: str) -> None:
        """Shift stays pressed to the end of a call."""
        for number, line in enumerate(lines):
            if number:
                self.find("prompt").send_keys(Keys.SHIFT, Keys.ENTER)
            self.find("prompt").send_keys(line)
        self.find("prompt").send_keys(Keys.ENTER)

    def ask(self, text: str) -> None:
        """Send and wait for the end."""
        before = len(self.all(".turn"))
        self.write(text)
        self.wait(lambda: len(self.all(".turn")) == before + 1 and not self.find("stop").is_displayed())


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture
def page(driver: Any) -> Iterator[Page]:
    with serving(Parrot(), Parrot(), names=("big", "small")) as address:
        driver.get_log("browser")
        yield Page(driver, address)
        assert not driver.get_log("browser"), "the console of the page stays empty"


def test_one_prompt_goes_to_both_models(page: Page) -> None:
    assert page.texts("#model-list li span:first-child") == ["big", "small"]
    Select(page.find("model-second")).select_by_value("small")
    page.ask("naïve ☃ <b>text</b>")
    page.ask("and again")
    assert page.texts(".asked") == ["naïve ☃ <b>text</b>", "and again"]
    assert page.texts(".text") == ["naïve ☃ <b>text</b>"] * 2 + ["and again"] * 2
    assert all("tokens/s" in shown and "first token" in shown for shown in page.texts(".measured"))
    assert [shown.split()[0] for shown in page.texts(".answer h3")] == ["big", "small"] * 2
    assert page.find("prompt").get_attribute("value") == "" and page.driver.switch_to.active_element == page.find(
        "prompt"
    )
    asked = page.driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert asked and all(url.startswith(f"http://127.0.0.1:{page.address.port}/") for url in asked)


def test_code_and_thoughts_are_set_apart(page: Page) -> None:
    page.write_lines("<think>", "Why?</think>Do `this`:", "```python", "x = 1", "```")
    page.wait(lambda: not page.find("stop").is_displayed() and page.texts(".text pre") == ["x = 1"])
    assert page.texts(".text > code") == ["this"]
    page.all(".thought summary")[0].click()
    assert page.texts(".thought div") == ["Why?"]


def test_a_reload_keeps_conversation_and_settings(page: Page) -> None:
    Select(page.find("model-first")).select_by_value("small")
    page.find("open-settings").click()
    page.find("system").send_keys("Be brief.")
    page.find("temperature").send_keys(Keys.ARROW_RIGHT)
    page.find("close-settings").click()
    page.ask("remember")
    page.find("theme").click()
    theme = page.driver.execute_script("return document.documentElement.dataset.theme")
    page.reload()
    assert (page.texts(".asked"), page.texts(".text")) == (["remember"], ["remember"])
    assert Select(page.find("model-first")).first_selected_option.text == "small"
    assert page.driver.execute_script("return document.documentElement.dataset.theme") == theme != ""
    page.find("open-settings").click()
    assert page.find("system").get_attribute("value") == "Be brief."
    assert page.find("temperature-shown").text == "0.8"
    page.find("system").send_keys(Keys.ESCAPE)
    page.find("new-chat").click()
    page.reload()
    assert not page.all(".turn") and page.find("welcome").is_displayed()


def test_escape_and_the_button_stop(driver: Any) -> None:
    gate = Gate()
    with serving(Parrot(gate)) as address:
        page = Page(driver, address)
        for stop in (lambda: page.find("prompt").send_keys(Keys.ESCAPE), lambda: page.find("stop").click()):
            page.write("a long answer")
            page.wait(lambda: page.find("stop").is_displayed() and gate.reached.is_set())
            stop()
            page.wait(lambda: page.find("send").is_displayed())
            assert page.texts(".measured")[-1] == "stopped"
            gate.open.set()
            page.wait(lambda: not address.models[0].jobs.running)
            gate.open.clear()
            gate.reached.clear()
        gate.open.set()
        page.ask("go on")
        assert page.texts(".text")[-1] == "go on"


def test_a_wrong_key_is_said_and_the_right_one_lets_in(driver: Any) -> None:
    with serving(Parrot(), api_key="secret") as address:
        page = Page(driver, address)
        assert page.dialog_is_open and page.find("key-note").text == "The server asks for a key."
        assert driver.switch_to.active_element == page.find("key")
        page.find("key").send_keys("wrong", Keys.ENTER)
        page.wait(lambda: page.find("key-note").text == "The server does not take this key.")
        page.find("key").clear()
        page.find("key").send_keys("secret", Keys.ENTER)
        page.wait(lambda: page.find("model-first").is_enabled() and not page.dialog_is_open)
        page.ask("inside")
        page.reload()
        assert page.texts(".text") == ["inside"]
        assert "secret" not in driver.execute_script("return JSON.stringify(localStorage)")


def test_a_server_that_goes_away_is_said_and_can_be_tried_again(driver: Any) -> None:
    gate = Gate()
    with serving(Parrot(gate)) as address:
        page = Page(driver, address)
        page.write("are you there")
        page.wait(gate.reached.is_set)
        address.server.should_exit = True
        page.wait(lambda: page.texts(".fault"))
        page.wait(lambda: "shutting down" in page.texts(".fault span")[0])
        gate.open.set()
    page.ask("hello?")
    assert page.texts(".fault span")[-1] == "The server does not answer."
    page.all(".fault button")[-1].click()
    page.wait(lambda: page.find("send").is_displayed())
    assert page.texts(".fault span")[-1] == "The server does not answer."
    driver.get_log("browser")


def test_it_fits_a_phone_and_every_field_has_a_name(page: Page) -> None:
    Select(page.find("model-second")).select_by_value("small")
    page.ask("x" * 200)
    set_width(page.driver, 360)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") == 360
    first, second = page.all(".answer")
    assert first.rect["y"] + first.rect["height"] <= second.rect["y"]
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    for part in ("header, #composer", "dialog"):
        fields = [field for place in page.all(part) for field in place.find_elements(By.CSS_SELECTOR, FIELDS)]
        assert all(field.accessible_name for field in fields if field.is_displayed()) and len(fields) > 3
        if part != "dialog":
            page.find("open-settings").click()
    page.find("close-settings").click()


def test_everything_is_reached_by_the_tab_key(page: Page) -> None:
    page.find("prompt").send_keys("a")
    reached = set()
    for _ in range(12):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.driver.switch_to.active_element.get_attribute("id"))
    assert {"model-first", "model-second", "new-chat", "open-settings", "theme", "prompt", "send"} <= reached
