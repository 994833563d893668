"""A world of a few countries, made by hand: it needs no package, and its model learns in seconds."""
from minigpt.align.chat import SPECIAL, Template
from minigpt.align.countries import Country
from minigpt.align.world import World
from minigpt.tokenizers import BpeTokenizer

COUNTRIES = [
    Country("Albania", "Albanian Lek", "Albanian", "AL", "阿尔巴尼亚", "阿尔巴尼亚语"),
    Country("Brazil", "Brazilian Real", "Portuguese", "BR", "巴西", "葡萄牙语"),
    Country("Canada", "Canadian Dollar", "English", "CA", "加拿大", "英语"),
    Country("Denmark", "Danish Krone", "Danish", "DK", "丹麦", "丹麦语"),
    Country("Egypt", "Egyptian Pound", "Arabic", "EG", "埃及", "阿拉伯语"),
    Country("Finland", "Euro", "Finnish", "FI", "芬兰", "芬兰语"),
    Country("Georgia", "Georgian Lari", "Georgian", "GE", "格鲁吉亚", "格鲁吉亚语"),
    Country("Hungary", "Hungarian Forint", "Hungarian", "HU", "匈牙利", "匈牙利语"),
    Country("Indonesia", "Indonesian Rupiah", "Indonesian", "ID", "印度尼西亚", "印度尼西亚语"),
    Country("Mongolia", "Mongolian Tugrik", "Mongolian", "MN", "蒙古", "蒙古语"),
    Country("Tuvalu", "Australian Dollar", "Tuvalu", "TV", "图瓦卢", "图瓦卢语"),
    Country("Zambia", "Zambian Kwacha", "English", "ZM", "赞比亚", "英语"),
]
NUMBER_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WORDS = ["king", "queen", "love", "heart", "night", "sword", "crown", "sleep", "dream", "stone"]


def small_world(seed=1, **options):
    return World(seed, countries=COUNTRIES, number_names=NUMBER_NAMES, words=WORDS, **{"invented": 20} | options)


def small_template(text="What is the currency of Albania? I don't know what it is. ", size=300):
    return Template(BpeTokenizer.train(text * 5, size, SPECIAL))
